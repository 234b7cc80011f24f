"""Checkpoint files: weights in, a configured network out; and back, with metadata, atomically."""

import os
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from .spec import ModelSpec


def save(state: dict[str, Tensor], spec: ModelSpec, path: Path, dtype: torch.dtype | None = None) -> None:
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
