"""Weights that are stored as small numbers times a scale, in the forms that circulate.

A tensor with one scale for all of it, or one for each of its rows, is multiplied out when it is read; everything finer
is refused by name.
`X.scale_weight` beside a tensor `scaled_fp8` is ComfyUI's older form, `X.weight_scale` with `X.comfy_quant` (or the
file's `_quantization_metadata`) its newer one; `__prx_internal__.fp8_scale.X.weight` is that of PRXPixel's fp8 files.
"""

import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..files import FileError
from ..tensors import Contents, Stored

MARK = "scaled_fp8"
RECORD = "_quantization_metadata"
PRX = "__prx_internal__.fp8_scale."
SCALES = (".scale_weight", ".weight_scale")
UNUSED = (".scale_input", ".input_scale")  # of what goes into a layer, for products in 8 bits
FORMATS = {
    "float8_e4m3fn": torch.float8_e4m3fn,
    "float8_e5m2": torch.float8_e5m2,
    "int8_tensorwise": torch.int8,
}
WORKING = torch.bfloat16  # the precision that such files were made for


def multiplied_out(contents: Contents) -> dict[str, Stored]:
    """The tensors of a file with every scale applied to its weight and taken away.

    FileError for a form that is not read. A file that is not quantised comes back as it is.
    """
    tensors = dict(contents.tensors)
    tensors.pop(MARK, None)
    formats = _formats(tensors, contents)
    for key in list(tensors):
        if key.endswith(UNUSED):
            del tensors[key]
    for key in list(tensors):
        weight = _scaled_by(key)
        if weight is None:
            continue
        scale = tensors.pop(key)
        if weight not in tensors:
            raise FileError(f"{key} is a scale, but its tensor {weight} is not in the file.")
        tensors[weight] = _product(weight, tensors[weight], scale, formats.pop(weight, None))
    if formats:
        weight, name = next(iter(formats.items()))
        raise FileError(f"{weight} is quantised ({name}) but lacks its scale.")
    return tensors


def in_int8(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Every matrix of a state as whole numbers from -127 to 127 with one scale for each row, in ComfyUI's newer form;
    what is no matrix in half precision."""
    record = torch.tensor(list(json.dumps({"format": "int8_tensorwise"}).encode()), dtype=torch.uint8)
    stored: dict[str, Tensor] = {}
    for key, value in state.items():
        if not (key.endswith(".weight") and value.ndim == 2 and value.is_floating_point()):
            stored[key] = value.half() if value.is_floating_point() else value
            continue
        layer, value = key.removesuffix(".weight"), value.float()
        scale = (value.abs().amax(1, keepdim=True) / 127).clamp(min=torch.finfo(torch.float32).tiny)
        stored[key] = (value / scale).round().to(torch.int8)
        stored |= {f"{layer}.weight_scale": scale, f"{layer}.comfy_quant": record.clone()}
    return stored


def _scaled_by(key: str) -> str | None:
    """The key of the tensor that a tensor of this key scales; None if it is no scale."""
    if key.startswith(PRX):
        return key.removeprefix(PRX)
    return next((f"{key.removesuffix(ending)}.weight" for ending in SCALES if key.endswith(ending)), None)


def _product(key: str, weight: Stored, scale: Stored, name: str | None) -> Stored:
    by_row = len(weight.shape) == 2 and scale.shape in ((weight.shape[0],), (weight.shape[0], 1))
    if scale.count != 1 and not by_row:
        raise FileError(
            f"{key} is quantised with {scale.count} scales, which are not read; use a file with one scale for each "
            "tensor or row, or fp16 or bf16."
        )
    dtype = FORMATS[name] if name else weight.dtype
    fits = weight.dtype in (dtype, torch.uint8) and (name or weight.dtype.is_floating_point)
    if not fits or weight.dtype.itemsize != 1:
        raise FileError(f"{key} has a scale but holds numbers of the type {_name(weight.dtype)}.")

    def get() -> Tensor:
        factor = scale.get().float()
        return weight.get().view(dtype).float() * (factor.reshape(()) if scale.count == 1 else factor.reshape(-1, 1))

    return Stored(weight.shape, WORKING, get)


def _formats(tensors: dict[str, Stored], contents: Contents) -> dict[str, str]:
    """How each quantised weight is stored, by key; takes the records of it out of `tensors`."""
    layers: dict[str, Any] = {}
    if RECORD in contents.metadata:
        prefix = "".join(name for name in contents.wrappers if name.endswith("."))
        recorded = json.loads(contents.metadata[RECORD])["layers"]
        layers |= {layer.removeprefix(prefix): settings for layer, settings in recorded.items()}
    for key in [key for key in tensors if key.endswith(".comfy_quant")]:
        layers[key.removesuffix(".comfy_quant")] = json.loads(tensors.pop(key).get().numpy().tobytes())
    formats = {}
    for layer, settings in layers.items():
        name = settings.get("format")
        if name not in FORMATS or settings.get("convrot") or settings.get("params"):
            raise FileError(f"{layer} is quantised in a form that is not read ({name}); use fp8 with scales or bf16.")
        formats[f"{layer}.weight"] = name
    return formats


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
