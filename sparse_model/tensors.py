"""Tensors out of files: safetensors and PyTorch's own format. No code from a file is ever run.

Tensors are read when they are asked for, one by one, into memory of their own: a file that somebody overwrites later
takes nothing away from a loaded network.
"""

import argparse
import json
import math
import pickle
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from .files import FileError

AVERAGED = ("ema_state_dict", "ema", "model_state_dict", "model", "state_dict", "module")  # weights in training dicts
PREFIXES = ("module.", "_orig_mod.", "state.model.denoiser.", "model.", "denoiser.", "net.", "diffusion_model.")
DAMAGED = "not a whole safetensors file; download or copy it again."
HEADER_LIMIT = 100_000_000  # bytes, as in the format's own library
INFLATED, SMALL = 8, 64 << 20  # how many times its own size an archive may hold, and how many bytes any may
MAKING_BYTES, ZIP = b"\nbytearray\n", b"PK\x03\x04"
NESTING = 8  # of the dictionaries around weights
PICKLES = {".pt", ".pth", ".ckpt", ".bin"}
TYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "I64": torch.int64, "I32": torch.int32,
    "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip


@dataclass(frozen=True)
class Stored:
    """A tensor in a file: its shape, the precision that its values need, and how to get them."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    get: Callable[[], Tensor]

    @property
    def count(self) -> int:
        return math.prod(self.shape)

    def read(self, dtype: torch.dtype | None = None) -> Tensor:
        """The values on the CPU; those of floating point in `dtype` if one is given."""
        value = self.get()
        return value.to(dtype or self.dtype) if value.is_floating_point() else value


@dataclass(frozen=True)
class Contents:
    """What is in the files of a checkpoint: tensors without what training wrapped around them, the metadata, and the
    names of the `wrappers` that were taken off, outermost first: keys of dictionaries, and prefixes with their dot."""

    tensors: Mapping[str, Stored]
    metadata: Mapping[str, str]
    wrappers: tuple[str, ...] = ()


@contextmanager
def opened(files: Sequence[Path], values: bool = True) -> Iterator[Contents]:
    """The contents of a checkpoint in one file or several, which stay open until the block ends.

    Without `values` no tensor can be read out of PyTorch's own format, of which they would all be in memory at once.
    FileError if a file is damaged or holds no weights.
    """
    tensors, metadata, wrappers = {}, {}, ()
    with ExitStack() as stack:
        for file in files:
            try:
                contents = _opened_file(file, stack, values)
            except FileError as error:
                if len(files) == 1:
                    raise
                raise FileError(f"its shard {file.name}: {error}") from error
            twice = tensors.keys() & contents.tensors.keys()
            if twice:
                raise FileError(f"two of its shards hold the tensor {min(twice)}; download them again.")
            tensors |= contents.tensors
            metadata |= contents.metadata
            wrappers = contents.wrappers
        if not tensors:
            raise FileError("holds no tensors.")
        tensors, prefixes = _without_prefixes(tensors)
        yield Contents(tensors, metadata, wrappers + prefixes)


def finite(tensor: Tensor) -> bool:
    """Whether every value is a finite number, looked at a few millions at a time: no second copy of a large tensor."""
    parts = tensor.flatten().split(1 << 22)
    small = tensor.dtype.itemsize == 1  # PyTorch knows no isfinite for 8-bit floats
    return all(torch.isfinite(part.float() if small else part).all() for part in parts)


def _opened_file(path: Path, stack: ExitStack, values: bool) -> Contents:
    if path.suffix == ".safetensors":
        return _safetensors(path, stack)
    if path.suffix in PICKLES:
        return _pickled(path, values)
    raise FileError(f"'{path.suffix}' is not a checkpoint format; use .safetensors, {', '.join(sorted(PICKLES))}.")


def _safetensors(path: Path, stack: ExitStack) -> Contents:
    file = stack.enter_context(path.open("rb"))
    size, length = path.stat().st_size, int.from_bytes(file.read(8), "little")
    start, end = 8 + length, 0
    if not 0 < length <= min(HEADER_LIMIT, size - 8):
        raise FileError(DAMAGED)
    try:
        header = json.loads(file.read(length))
        metadata = header.pop("__metadata__", {})
        places = {key: (*entry["data_offsets"], tuple(entry["shape"]), entry["dtype"]) for key, entry in header.items()}
        for begin, stop, shape, _ in sorted(places.values(), key=lambda place: place[:2]):
            if begin != end or stop < begin or not all(type(number) is int and number >= 0 for number in shape):
                raise FileError(DAMAGED)
            end = stop
        words = [*metadata, *metadata.values()]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FileError(DAMAGED) from error
    if start + end != size or not all(isinstance(word, str) for word in words):
        raise FileError(DAMAGED)
    return Contents({key: _in_safetensors(file, start, key, *place) for key, place in places.items()}, metadata)


def _in_safetensors(file: BinaryIO, start: int, key: str, begin: int, end: int, shape: tuple, name: str) -> Stored:
    """A tensor of the bytes from `begin` to `end` behind `start`, of numbers of the type `name`."""
    if name not in TYPES:
        raise FileError(f"{key} holds numbers of the type {name}, which is not read; use fp16 or bf16.")
    dtype = TYPES[name]
    if math.prod(shape) * dtype.itemsize != end - begin:
        raise FileError(DAMAGED)

    def get() -> Tensor:
        value = torch.empty(shape, dtype=dtype)
        if end > begin:
            file.seek(start + begin)
            if file.readinto(memoryview(value.reshape(-1).view(torch.uint8).numpy())) != end - begin:
                raise FileError("the file became shorter while it was read.")
        return value

    return Stored(shape, dtype, get)


def _pickled(path: Path, values: bool) -> Contents:
    """Reads with the restricted unpickler only, all of the file at once: of memory that is mapped the system takes away
    what somebody cuts off a file. Without `values` PyTorch skips them. Namespace is what DiT's training script stores
    its options in."""
    try:
        with path.open("rb") as file:
            room = _room(file)
            file.seek(0)
            with torch.serialization.safe_globals([argparse.Namespace]):
                data = torch.load(file, map_location="cpu" if values else "meta", weights_only=True, mmap=False)
    except (FileError, MemoryError):
        raise
    except pickle.UnpicklingError as error:
        if "Unsupported" in str(error) or "weights_only" in str(error).lower():
            raise FileError(
                "holds Python objects besides tensors, which could run code when loaded, so it was not opened; ask its "
                "author for safetensors."
            ) from error
        raise FileError("not a PyTorch checkpoint; download or copy it again.") from error
    except Exception as error:  # whatever the unpickler trips over
        raise FileError("not a whole PyTorch checkpoint; download or copy it again.") from error
    weights, wrappers = _weights(data)
    tensors = {key: _in_memory(key, value) for key, value in weights.items()}
    storages = {value.untyped_storage().data_ptr(): value.untyped_storage().nbytes() for value in weights.values()}
    if sum(storages.values()) > room:
        raise FileError("holds tensors of more bytes than it has itself; it is damaged.")
    return Contents(tensors, {}, wrappers)


def _room(file: BinaryIO) -> int:
    """How many bytes a file of PyTorch holds. FileError for one of a few kilobytes that would fill the memory: an
    archive of which far more comes out, or a pickle that makes bytes of its own, which the restricted unpickler lets
    it do."""
    size, pickles = file.seek(0, 2), [file]
    file.seek(0)
    if file.read(len(ZIP)) == ZIP:
        archive = zipfile.ZipFile(file)
        entries = archive.infolist()
        inside = sum(entry.file_size for entry in entries)
        if inside > max(INFLATED * size, SMALL):
            raise FileError("holds many times more than weights can be compressed; it is damaged.")
        size, pickles = inside, [archive.open(entry) for entry in entries if entry.filename.lower().endswith(".pkl")]
    for each in pickles:
        each.seek(0)
        if _found(MAKING_BYTES, each):
            raise FileError("holds bytes besides tensors, so it was not opened; ask its author for safetensors.")
    return size


def _found(needle: bytes, file: BinaryIO) -> bool:
    end = b""
    while part := file.read(1 << 24):
        if needle in end + part:
            return True
        end = part[-len(needle) :]
    return False


def _in_memory(key: str, value: Tensor) -> Stored:
    ordinary = value.layout is torch.strided and not value.is_nested and not value.is_quantized
    if not ordinary or value.device.type not in ("cpu", "meta") or value.dtype.is_complex:
        raise FileError(f"{key} is not an ordinary tensor of real numbers.")
    if value.numel() * value.dtype.itemsize > value.untyped_storage().nbytes():
        raise FileError(f"{key} is stored as a view that repeats its values, not whole.")
    value = value.detach()
    return Stored(tuple(value.shape), value.dtype, partial(_value, key, value))


def _value(key: str, value: Tensor) -> Tensor:
    if value.is_meta:
        raise FileError(f"it is known only when it is loaded, as {key} must be read for it.")
    return value


def _weights(data: object) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The state dict inside a file's data, averaged weights first, and the keys that led to it."""
    wrappers = []
    while isinstance(data, Mapping) and not any(isinstance(value, Tensor) for value in data.values()):
        name = next((name for name in AVERAGED if isinstance(data.get(name), Mapping)), None)
        if name is None or len(wrappers) == NESTING:
            break
        wrappers.append(name)
        data = data[name]
    if not isinstance(data, Mapping):
        raise FileError("holds a single value, not a model's weights.")
    state = {str(key): value for key, value in data.items() if isinstance(value, Tensor)}
    return state, tuple(wrappers)


def _without_prefixes(tensors: Mapping[str, Stored]) -> tuple[dict[str, Stored], tuple[str, ...]]:
    prefixes = []
    for prefix in PREFIXES:
        if tensors and all(key.startswith(prefix) for key in tensors):
            tensors = {key.removeprefix(prefix): value for key, value in tensors.items()}
            prefixes.append(prefix)
    return dict(tensors), tuple(prefixes)
