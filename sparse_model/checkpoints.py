"""Checkpoint files: recognised, checked and loaded without ever running code from them; written atomically."""

import argparse
import os
import pickle
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from .labels import class_names
from .models import ARCHITECTURES
from .models.layers import TORCH, Backend
from .spec import KEY, ModelSpec

AVERAGED = ("ema_state_dict", "ema", "model", "state_dict", "module")  # what training dicts call their weights
PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "diffusion_model.")
# what people load as a model by mistake, told by parts of keys
FOREIGN = {
    "a LoRA; load the model it was made for and connect Load LoRA behind it": ("lora_A.", "lora_down.", "lora_up."),
    "a U-Net, which has no tokens to leave out; load it with the stock loaders": ("input_blocks.", "time_embedding."),
    "a VAE; move it to models/vae and load it with Load VAE": ("decoder.conv_in.", "first_stage_model."),
    "a text encoder; move it to models/text_encoders": ("text_model.", "encoder.block.0.", "embed_tokens."),
}
PICKLES = {".pt", ".pth", ".ckpt", ".bin"}


class CheckpointError(ValueError):
    """A file that cannot become a network, in one sentence that names the file and what is wrong."""


def read(path: Path | str) -> tuple[ModelSpec, dict[str, Tensor]]:
    """What a checkpoint file is, and its weights on the CPU under the architecture's own keys.

    The spec comes from the file's metadata, or else from keys, shapes and, where two families share both, the file
    name. CheckpointError if the file is not a whole, finite checkpoint of a known architecture.
    """
    path = Path(path)
    try:
        state, metadata = _read_file(path)
        spec = ModelSpec.from_metadata(metadata) if KEY in metadata else infer(state, path.stem)
        state = _matching(state, spec)
    except (ValueError, OSError) as error:
        raise CheckpointError(f"{path.name}: {error}") from error
    return spec, state


def load(path: Path | str, backend: Backend = TORCH) -> tuple[nn.Module, ModelSpec]:
    """A network ready to sample with, in the file's own precision (float32 where the backend's dtype is None)."""
    spec, state = read(path)
    network = build(spec, backend)
    network.load_state_dict(state)
    return network.eval().requires_grad_(False), spec


def build(spec: ModelSpec, backend: Backend = TORCH) -> nn.Module:
    """The network of a spec, its weights not yet loaded."""
    return ARCHITECTURES[spec.architecture].network(spec.config, spec.sparsity, backend)


def infer(state: Mapping[str, Tensor], name: str) -> ModelSpec:
    """The spec of a checkpoint that does not carry one; ValueError with the known families if none fits."""
    shapes = {key: tuple(value.shape) for key, value in state.items()}
    for architecture, entry in ARCHITECTURES.items():
        found = entry.infer(shapes, name)
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


def _read_file(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    if not path.is_file():
        raise ValueError("there is no such file.")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    if path.suffix in PICKLES:
        return _plain(_read_pickle(path)), {}
    raise ValueError(f"'{path.suffix}' is not a checkpoint format; use .safetensors, {', '.join(sorted(PICKLES))}.")


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, "pt") as file:
            return _plain({key: file.get_tensor(key) for key in file.keys()}), file.metadata() or {}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"not a whole safetensors file ({error}); download or copy it again.") from error


def _read_pickle(path: Path) -> object:
    """Reads with the restricted unpickler only. Namespace is what DiT's training script stores its options in."""
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "Unsupported" in str(error) or "weights_only" in str(error).lower():
            raise ValueError(
                "holds Python objects besides tensors, which could run code when loaded, so it was not opened; ask its "
                "author for safetensors."
            ) from error
        raise ValueError(f"not a PyTorch checkpoint ({_first_line(error)}).") from error
    except (RuntimeError, EOFError, KeyError, AttributeError, TypeError, UnicodeDecodeError) as error:
        raise ValueError(f"not a whole PyTorch checkpoint ({_first_line(error)}).") from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _plain(data: object) -> dict[str, Tensor]:
    """The state dict inside a file's data: averaged weights first, without the prefixes of wrappers."""
    while isinstance(data, Mapping) and not any(isinstance(value, Tensor) for value in data.values()):
        inner = next((data[name] for name in AVERAGED if isinstance(data.get(name), Mapping)), None)
        if inner is None:
            break
        data = inner
    if not isinstance(data, Mapping):
        raise ValueError(f"holds a {type(data).__name__}, not a model's weights.")
    state = {str(key): value for key, value in data.items() if isinstance(value, Tensor)}
    if not state:
        raise ValueError("holds no tensors.")
    for prefix in PREFIXES:
        if all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def _matching(state: dict[str, Tensor], spec: ModelSpec) -> dict[str, Tensor]:
    """The tensors that the spec's network takes, checked; keys that it does not know are left out."""
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
        if state[key].is_floating_point() and not torch.isfinite(state[key].float()).all():
            raise ValueError(f"{key} holds values that are not finite; the file is damaged.")
    return {key: state[key] for key in wanted}
