"""Checkpoint files: recognised, checked and loaded without ever running code from them; written atomically."""

import os
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ..conditions.labels import class_names
from ..files import finite, model_name, pipeline_settings, read_tensors
from ..method.prediction import Flow
from ..networks import ARCHITECTURES
from ..networks.layers import TORCH, Backend
from .spec import KEY, ModelSpec

# what people load as a model by mistake, told by parts of keys
FOREIGN = {
    "a LoRA; load the model it was made for and connect Load LoRA behind it": ("lora_A.", "lora_down.", "lora_up."),
    "a U-Net, which has no tokens to leave out; load it with the stock loaders": ("input_blocks.", "time_embedding."),
    "a VAE; move it to models/vae and load it with Load VAE": ("decoder.conv_in.", "first_stage_model."),
    "a text encoder; move it to models/text_encoders": ("text_model.", "encoder.block.0.", "embed_tokens."),
}
SCALES = (".scale_weight", ".weight_scale", "scaled_fp8")


class CheckpointError(ValueError):
    """A file that cannot become a network, in one sentence that names the file and what is wrong."""


def read(path: Path | str) -> tuple[ModelSpec, dict[str, Tensor]]:
    """What a checkpoint is, and its weights on the CPU, mapped from the file, under the architecture's own keys.

    `path` is a file, an index of shards, one of the shards, or a diffusers folder. The spec comes from the file's
    metadata, or else from keys, shapes and, where two families share both, the name. CheckpointError if it is not a
    whole, finite checkpoint of a known architecture.
    """
    path = Path(path)
    try:
        state, metadata = read_tensors(path)
        if KEY in metadata:
            spec = ModelSpec.from_metadata(metadata)
        else:
            spec = _published(infer(state, model_name(path)), pipeline_settings(path))
        state = _matching(state, spec)
    except (ValueError, OSError) as error:
        raise CheckpointError(f"{path.name}: {error}") from error
    return spec, state


def load(path: Path | str, backend: Backend = TORCH) -> tuple[nn.Module, ModelSpec]:
    """A network ready to sample with, in the backend's precision (float32 where that is None)."""
    spec, state = read(path)
    network = build(spec, replace(backend, device="meta"))
    fill(network, state, backend.dtype or torch.float32, backend.device or "cpu")
    return network.eval().requires_grad_(False), spec


def fill(network: nn.Module, state: dict[str, Tensor], dtype: torch.dtype, device: torch.device | str) -> None:
    """Puts weights into a network in place of its own, one at a time, and empties `state` on the way: at no moment
    are there two copies of more than one tensor."""
    for key in list(state):
        value = state.pop(key)
        state[key] = value.to(device, dtype if value.is_floating_point() else None)
    network.load_state_dict(state, assign=True)
    state.clear()


def build(spec: ModelSpec, backend: Backend = TORCH) -> nn.Module:
    """The network of a spec, its weights not yet loaded."""
    return ARCHITECTURES[spec.architecture].network(spec.config, spec.sparsity, backend)


def infer(state: Mapping[str, Tensor], name: str) -> ModelSpec:
    """The spec of a checkpoint that does not carry one; ValueError with the known families if none fits."""
    shapes = {key: tuple(value.shape) for key, value in state.items()}
    for architecture, entry in ARCHITECTURES.items():
        found = entry.infer({entry.rename(key): shape for key, shape in shapes.items()}, name)
        if found is not None:
            spec = ModelSpec(architecture, **found, title=name)
            return spec if spec.text else replace(spec, labels=class_names(spec.config.num_classes))
    for what, marks in FOREIGN.items():
        if any(mark in key for key in shapes for mark in marks):
            raise ValueError(f"this is {what}.")
    raise ValueError(
        f"not a checkpoint of a known architecture ({', '.join(ARCHITECTURES)}); its first keys are "
        f"{', '.join(list(shapes)[:4]) or 'none'}."
    )


def _published(spec: ModelSpec, settings: Mapping[str, float]) -> ModelSpec:
    """The spec with what the files around the weights say of the schedule, the noise and the size."""
    if isinstance(spec.prediction, Flow) and spec.prediction.levels:
        known = {key: settings[key] for key in ("shift", "noise_scale") if settings.get(key, 0) > 0}
        spec = replace(spec, prediction=replace(spec.prediction, **known))
    size, left = divmod(int(settings.get("default_sample_size", 0)), spec.ratio)
    if size and not left and size % spec.config.patch_size == 0:
        spec = replace(spec, config=replace(spec.config, input_size=size))
    return spec


def save(state: Mapping[str, Tensor], spec: ModelSpec, path: Path, dtype: torch.dtype | None = None) -> None:
    """Writes a safetensors file with metadata; the file appears whole or not at all."""
    tensors = {
        name: (value.to(dtype) if dtype and value.is_floating_point() else value).contiguous().cpu()
        for name, value in state.items()
    }
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    try:
        save_file(tensors, temporary, metadata=spec.to_metadata())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _matching(state: dict[str, Tensor], spec: ModelSpec) -> dict[str, Tensor]:
    """The tensors that the spec's network takes, checked; keys that it does not know are left out."""
    rename = ARCHITECTURES[spec.architecture].rename
    state = {rename(key): value for key, value in state.items()}
    scales = [key for key in state if key.endswith(SCALES)]
    if scales:
        raise ValueError(f"its weights are quantised with scales ({scales[0]}), which are not read; use fp16 or bf16.")
    with torch.device("meta"):
        wanted = build(spec, replace(TORCH, device="meta")).state_dict()
    missing = [key for key in wanted if key not in state]
    if missing:
        raise ValueError(
            f"lacks {len(missing)} of the {len(wanted)} tensors of a {spec.architecture} network, such as {missing[0]}."
        )
    for key, value in wanted.items():
        if state[key].shape != value.shape:
            raise ValueError(f"{key} has the shape {list(state[key].shape)}, expected {list(value.shape)}.")
        if state[key].is_floating_point() and not finite(state[key]):
            raise ValueError(f"{key} holds values that are not finite; the file is damaged.")
    return {key: state[key] for key in wanted}
