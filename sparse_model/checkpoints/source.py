"""Which files a path means: one file, shards with or without an index, or a folder of diffusers."""

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..files import FileError, printable, read_json

INDEX = ".index.json"
SHARD = re.compile(r"-(\d{5})-of-(\d{5})(?=\.\w+$)")
SETTINGS = ("shift", "default_sample_size", "noise_scale")
# file names that say nothing; their folder's does
NAMELESS = ("diffusion_pytorch_model", "pytorch_model", "model", "denoiser")


@dataclass(frozen=True)
class Source:
    """A checkpoint on disk: the `name` that people call it by, its `files`, and the `settings` of the diffusers
    pipeline around it: the scheduler's "shift", the pipeline's "default_sample_size" and "noise_scale", each where it
    is there."""

    name: str
    files: tuple[Path, ...]
    settings: Mapping[str, float]


def find(path: Path) -> Source:
    """The checkpoint at `path`: a file, an index of shards, any one of the shards, or a folder.

    FileError if it is not there or not complete.
    """
    file = path
    if path.is_dir():
        file = _in_folder(path)
    elif not path.is_file():
        raise FileError("it is not a file." if path.exists() else "there is no such file.")
    return Source(printable(model_name(path), 200), tuple(_shards(file)), _pipeline_settings(file.parent))


def model_name(path: Path) -> str:
    """What people call a checkpoint: its file's name without what belongs to the format, or else its folder's."""
    name = SHARD.sub("", path.name.removesuffix(INDEX))
    stem = path.name if path.is_dir() else Path(name).stem
    if stem.split(".")[0] not in (*NAMELESS, "transformer"):
        return stem
    folder = path.resolve().parent
    return folder.parent.name if folder.name == "transformer" else folder.name


def _in_folder(path: Path) -> Path:
    """The file to open in the folder of a diffusers pipeline or model: its index, or its one file of weights."""
    for folder in (path / "transformer", path):
        indices = sorted(folder.glob(f"*.safetensors{INDEX}"))
        files = sorted(folder.glob("*.safetensors"))
        choice = indices or [file for file in files if file.stem == NAMELESS[0]] or files
        if len({SHARD.sub("", file.name) for file in choice}) > 1:
            raise FileError(
                f"the folder holds several models, such as {choice[0].name} and {choice[1].name}; name one."
            )
        if choice:
            return choice[0]
    raise FileError("the folder holds no .safetensors file and no index of shards, nor does its folder 'transformer'.")


def _pipeline_settings(folder: Path) -> dict[str, float]:
    settings = {}
    if folder.name == "transformer":
        for name in ("scheduler/scheduler_config.json", "model_index.json"):
            with suppress(FileError):
                settings |= numbers(read_json(folder.parent / name))
    return settings


def numbers(values: Any) -> dict[str, float]:
    """Those of SETTINGS in a JSON object that are ordinary positive numbers."""
    if not isinstance(values, dict):
        return {}
    stated = {key: values[key] for key in SETTINGS if type(values.get(key)) in (int, float)}
    return {key: float(value) for key, value in stated.items() if 0 < value < 1e6}


def _shards(path: Path) -> list[Path]:
    """All files of a checkpoint; FileError that names the first one that is missing."""
    match = SHARD.search(path.name)
    if path.name.endswith(INDEX):
        names = _named_by_index(path)
    elif match:
        count = int(match[2])
        names = [SHARD.sub(f"-{number:05}-of-{count:05}", path.name) for number in range(1, count + 1)]
    else:
        return [path]
    files = [path.parent / name for name in names]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise FileError(
            f"its shard {missing[0]} is missing ({len(files) - len(missing)} of {len(files)} are there); download it "
            "and put it beside the others."
        )
    return files


def _named_by_index(path: Path) -> list[str]:
    try:
        names = sorted(set(read_json(path)["weight_map"].values()))
        outside = [name for name in names if Path(name).name != name]
    except (KeyError, AttributeError, TypeError, ValueError) as error:
        raise FileError("not an index of shards; download it again.") from error
    if outside:
        raise FileError(f"it names the shard {outside[0]!r} outside its own folder, so it was not opened.")
    return names
