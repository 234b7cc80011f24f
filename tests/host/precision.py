"""Runs inside a host's Python, without a server: python precision.py CHECKOUT PACK CHECKPOINT [CASE ...], prints JSON.

What the host's call of a network adds to its own numbers: labels that are combined, and rounding.
"""

import sys
from pathlib import Path

from hosted_pack import load_pack, report

checkout, pack, checkpoint, *wanted = sys.argv[1:]
part = load_pack(checkout, pack, "--use-pytorch-cross-attention")

import comfy.model_management as management  # noqa: E402
import torch  # noqa: E402
from torch import Tensor  # noqa: E402

load = part("nodes.host.own.loading").load
network, spec = part("sparse_model.checkpoints.checkpoint").load(checkpoint)
size, SIGMAS = spec.config.input_size, (0.05, 0.5, 1.0)
x = torch.randn(2, spec.config.in_channels, size, size, generator=torch.Generator().manual_seed(1))


def hosted(model: object, conditions: Tensor, sigma: float) -> Tensor:
    """D of x at sigma as the host has it, for conditions [n, classes] behind one another."""
    level = torch.full((2,), sigma)
    options = {"cond_or_uncond": [0], "uuids": ["a"], "sigmas": level}
    with torch.no_grad():
        return model.model.apply_model(x, level, c_crossattn=conditions.expand(2, -1, -1), transformer_options=options)


def expected(weights: Tensor, sigma: float) -> Tensor:
    return spec.prediction.denoise(network, x, torch.full((2,), sigma), weights.expand(2, -1))


def started(**kind: str) -> object:
    model = load(checkpoint, **kind)
    model.patch_model(device_to=torch.device("cpu"))
    model.pre_run()
    return model


def labels() -> list[float]:
    """Errors of conditions behind one another against their weights in one: of either sign, in either order, and
    together with one that is repeated."""
    model, errors = started(), []
    for rows, weights in (
        ([[-0.5, 0, 0], [0, 0, 1]], [-0.5, 0, 1]),
        ([[0, 0, 1], [-0.5, 0, 0]], [-0.5, 0, 1]),
        ([[0.5, 0, 0], [0, 0, 1]], [0.5, 0, 1]),
        ([[0, -1, 1], [0, -1, 1]], [0, -1, 1]),
        ([[0, 0, 0]], [0, 0, 0]),
    ):
        found, wanted = hosted(model, torch.tensor(rows, dtype=torch.float32), 0.5), torch.tensor([weights]).float()
        errors.append(float((found - expected(wanted, 0.5)).abs().max() / found.abs().max()))
    return errors


def noted() -> dict[str, list[str]]:
    """In which precision weights are kept, and which the host has noted to move them in (new hosts alone)."""
    model = load(str(Path(checkpoint).with_name("xut.safetensors")), "fp8_e4m3fn").model.diffusion_model
    kept, moved = {}, {}
    for name, module in model.named_modules():
        for key, value in module.named_parameters(recurse=False):
            kept[f"{name}.{key}"] = str(value.dtype)
            moved[f"{name}.{key}"] = str(getattr(module, f"{key}_comfy_model_dtype", None))
    if not hasattr(management, "archive_model_dtypes"):
        moved = kept
    return {"differ": [key for key in kept if kept[key] != moved[key]], "kinds": sorted(set(kept.values()))}


report({"labels": labels, "noted": noted}, wanted)
