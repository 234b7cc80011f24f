"""Tensors out of files: safetensors and PyTorch's own format.

Nothing is read before it is needed: tensors are views of mapped files, each on a mapping of its own, so that letting
go of a tensor lets go of its memory. No code from a file is ever run.
"""

import argparse
import pickle
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

AVERAGED = ("ema_state_dict", "ema", "model", "state_dict", "module")  # what training dicts call their weights
PREFIXES = ("module.", "_orig_mod.", "state.model.denoiser.", "model.", "net.", "diffusion_model.")
PICKLES = {".pt", ".pth", ".ckpt", ".bin"}


def read_tensors(files: Sequence[Path]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The weights and metadata of a checkpoint in one file or several.

    ValueError in one sentence, without the checkpoint's name, if it is damaged or holds no weights.
    """
    state, metadata = {}, {}
    for file in files:
        try:
            tensors, more = _read_file(file)
        except ValueError as error:
            if len(files) == 1:
                raise
            raise ValueError(f"its shard {file.name}: {error}") from error
        state |= tensors
        metadata |= more
    return plain(state), metadata


def model_folders(root: Path, accept: Callable[[Path], object]) -> list[str]:
    """Names of the folders below `root`, down to three levels, with a config.json and taken by `accept`: sorted."""
    configs = (config for depth in (1, 2, 3) for config in root.glob("*/" * depth + "config.json"))
    return sorted(config.parent.relative_to(root).as_posix() for config in configs if accept(config.parent))


def _read_file(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    if path.suffix in PICKLES:
        return plain(_read_pickle(path)), {}
    raise ValueError(f"'{path.suffix}' is not a checkpoint format; use .safetensors, {', '.join(sorted(PICKLES))}.")


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, "pt") as file:
            keys, metadata = list(file.keys()), file.metadata() or {}
        state = {}
        for key in keys:
            with safe_open(path, "pt") as file:  # opened for each, which makes a mapping for each
                state[key] = file.get_tensor(key)
    except SafetensorError as error:
        raise ValueError(f"not a whole safetensors file ({error}); download or copy it again.") from error
    return state, metadata


def _read_pickle(path: Path) -> object:
    """Reads with the restricted unpickler only. Namespace is what DiT's training script stores its options in."""
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
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


def plain(data: object) -> dict[str, Tensor]:
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


def finite(tensor: Tensor) -> bool:
    """Whether every value is a finite number, looked at a few millions at a time: no second copy of a large tensor."""
    parts = tensor.flatten().split(1 << 22)
    small = tensor.dtype.itemsize == 1  # PyTorch knows no isfinite for 8-bit floats
    return all(torch.isfinite(part.float() if small else part).all() for part in parts)
