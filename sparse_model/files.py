"""Tensors out of files: safetensors, PyTorch's own format, and sharded folders of them.

Nothing is read before it is needed: tensors are views of mapped files, each on a mapping of its own, so that letting
go of a tensor lets go of its memory. No code from a file is ever run.
"""

import argparse
import json
import pickle
import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

AVERAGED = ("ema_state_dict", "ema", "model", "state_dict", "module")  # what training dicts call their weights
PREFIXES = ("module.", "_orig_mod.", "state.model.denoiser.", "model.", "net.", "diffusion_model.")
PICKLES = {".pt", ".pth", ".ckpt", ".bin"}
INDEX = ".index.json"
SHARD = re.compile(r"-(\d{5})-of-(\d{5})(?=\.\w+$)")
SETTINGS = ("shift", "default_sample_size", "noise_scale")
NAMELESS = ("diffusion_pytorch_model", "pytorch_model", "model")  # file names that say nothing; their folder's does


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The weights and metadata of a checkpoint: one file, an index of shards, any one of its shards, or a folder.

    ValueError in one sentence, without the file's name, if it is damaged, incomplete, or no checkpoint at all.
    """
    state, metadata = {}, {}
    for file in shards(located(path)):
        tensors, more = _read_file(file)
        state |= tensors
        metadata |= more
    return plain(state), metadata


def model_name(path: Path) -> str:
    """What people call a checkpoint: its file's name without what belongs to the format, or else its folder's."""
    name = SHARD.sub("", path.name.removesuffix(INDEX))
    stem = path.name if path.is_dir() else Path(name).stem
    if stem.split(".")[0] not in (*NAMELESS, "transformer"):
        return stem
    folder = path.resolve().parent
    return folder.parent.name if folder.name == "transformer" else folder.name


def located(path: Path) -> Path:
    """The file to open: of a folder (of a diffusers pipeline or model) its index, or its one file of weights."""
    if not path.is_dir():
        if not path.is_file():
            raise ValueError("there is no such file.")
        return path
    for folder in (path / "transformer", path):
        indices = sorted(folder.glob(f"*.safetensors{INDEX}"))
        files = sorted(folder.glob("*.safetensors"))
        found = indices or [file for file in files if file.stem == NAMELESS[0]] or files
        if len({SHARD.sub("", file.name) for file in found}) > 1:
            raise ValueError(f"the folder holds several models, such as {found[0].name} and {found[1].name}; name one.")
        if found:
            return found[0]
    raise ValueError("the folder holds no .safetensors file and no index of shards, nor does its folder 'transformer'.")


def pipeline_settings(path: Path) -> dict[str, float]:
    """What the folder of a diffusers pipeline says besides a transformer's weights: the scheduler's "shift", the
    pipeline's "default_sample_size" and "noise_scale", each where it is there."""
    folder, found = located(path).parent, {}
    if folder.name != "transformer":
        return found
    for name in ("scheduler/scheduler_config.json", "model_index.json"):
        try:
            values = json.loads((folder.parent / name).read_text(encoding="utf-8"))
            found |= {key: float(values[key]) for key in SETTINGS if isinstance(values.get(key), int | float)}
        except (OSError, ValueError, AttributeError):
            continue
    return found


def model_folders(root: Path, known: Callable[[Path], object]) -> list[str]:
    """Folders below `root`, down to three levels, with a config.json and accepted by `known`: their names, sorted."""
    configs = (config for depth in (1, 2, 3) for config in root.glob("*/" * depth + "config.json"))
    return sorted(config.parent.relative_to(root).as_posix() for config in configs if known(config.parent))


def shards(path: Path) -> list[Path]:
    """All files of a checkpoint; ValueError that names the first one that is missing."""
    match = SHARD.search(path.name)
    if path.name.endswith(INDEX):
        names = _shards_of_index(path)
    elif match:
        count = int(match[2])
        names = [SHARD.sub(f"-{number:05}-of-{count:05}", path.name) for number in range(1, count + 1)]
    else:
        return [path]
    files = [path.parent / name for name in names]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise ValueError(
            f"lacks its shard {missing[0]} ({len(files) - len(missing)} of {len(files)} are there); download it and "
            "put it beside the others."
        )
    return files


def _shards_of_index(path: Path) -> list[str]:
    try:
        names = sorted(set(json.loads(path.read_text())["weight_map"].values()))
    except (KeyError, AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"not an index of shards ({type(error).__name__}); download it again.") from error
    for name in names:
        if Path(name).name != name:
            raise ValueError(f"names the shard {name!r} outside its own folder, so it was not opened.")
    return names


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
        shard = f"its shard {path.name} is " if SHARD.search(path.name) else ""
        raise ValueError(f"{shard}not a whole safetensors file ({error}); download or copy it again.") from error
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
