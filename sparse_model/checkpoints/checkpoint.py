"""Checkpoint files: recognised, checked and loaded without ever running code from them; written atomically."""

import os
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ..files import finite, read_tensors
from ..networks.layers import TORCH, Backend
from .clues import Clues
from .families import ARCHITECTURES, recognise
from .metadata import KEY, from_metadata, to_metadata
from .source import find
from .spec import ModelSpec

SCALES = (".scale_weight", ".weight_scale", "scaled_fp8")


class CheckpointError(ValueError):
    """A file that cannot become a network, in one sentence that names the file and what is wrong."""


def read(path: Path | str) -> tuple[ModelSpec, dict[str, Tensor]]:
    """What a checkpoint is, and its weights on the CPU, mapped from the file, under the architecture's own keys.

    `path` is a file, an index of shards, one of the shards, or a diffusers folder. The spec comes from the file's
    metadata, or else from keys, shapes and, where two families share both, the name. CheckpointError unless it is a
    whole, finite checkpoint of a known architecture.
    """
    path = Path(path)
    try:
        source = find(path)
        state, metadata = read_tensors(source.files)
        recorded, clues = KEY in metadata, Clues.of(state, source.name, source.settings)
        spec = from_metadata(metadata) if recorded else recognise(clues)
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


def save(state: Mapping[str, Tensor], spec: ModelSpec, path: Path, dtype: torch.dtype | None = None) -> None:
    """Writes a safetensors file with metadata; the file appears whole or not at all."""
    tensors = {
        name: (value.to(dtype) if dtype and value.is_floating_point() else value).contiguous().cpu()
        for name, value in state.items()
    }
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        temporary, ordinary = Path(folder, path.name), Path(folder, "ordinary")
        save_file(tensors, temporary, metadata=to_metadata(spec))
        ordinary.touch()  # save_file's own files are private; this one has the mode that any new file gets here
        temporary.chmod(ordinary.stat().st_mode)
        os.replace(temporary, path)


def _matching(state: dict[str, Tensor], spec: ModelSpec) -> dict[str, Tensor]:
    """The tensors that the spec's network takes, checked; keys that it does not know are left out."""
    rename = ARCHITECTURES[spec.architecture].rename
    state = {rename(key): value for key, value in state.items()}
    scales = [key for key in state if key.endswith(SCALES)]
    if scales:
        raise ValueError(f"its weights are quantised with scales ({scales[0]}), which are not read; use fp16 or bf16.")
    wanted = build(spec, replace(TORCH, device="meta")).state_dict()
    missing = [key for key in wanted if key not in state]
    if missing:
        raise ValueError(
            f"it lacks {len(missing)} of the {len(wanted)} tensors of a {spec.architecture} network, such as "
            f"{missing[0]}."
        )
    for key, value in wanted.items():
        if state[key].shape != value.shape:
            raise ValueError(f"{key} has the shape {list(state[key].shape)}, expected {list(value.shape)}.")
        if state[key].is_floating_point() and not finite(state[key]):
            raise ValueError(f"{key} holds values that are not finite; the file is damaged.")
    return {key: state[key] for key in wanted}
