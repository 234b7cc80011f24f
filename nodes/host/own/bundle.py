"""Checkpoints that hold a network with its autoencoder and, sometimes, its text encoder: HDM's."""

from pathlib import Path

import comfy.model_patcher
import comfy.sd
from torch import Tensor

from ....sparse_model.checkpoints.checkpoint import explained
from ....sparse_model.conditions.qwen3 import sizes, weights
from ....sparse_model.files import FileError
from ....sparse_model.tensors import Stored, finite, opened
from .decoder import AbsentVAE
from .qwen import absent_clip, clip_of

VAE, ENCODER = "vae.", "te.text_models.0."  # what stands in front of the keys of each
NO_ENCODER = (
    "{name} holds no text encoder: download model.safetensors of huggingface.co/Qwen/Qwen3-0.6B into "
    "models/text_encoders and choose it as text_encoder in Sparse Checkpoint Loader."
)
NO_VAE = (
    "{name} holds no VAE: download diffusion_pytorch_model.safetensors of huggingface.co/KBlueLeaf/EQ-SDXL-VAE into "
    "models/vae and load it with Load VAE."
)


def load_vae(path: Path) -> "comfy.sd.VAE | AbsentVAE":
    """The autoencoder in a checkpoint, or one that says what to download when it is used."""
    with explained(path), opened((path,)) as contents:
        stored = {key.removeprefix(VAE): value for key, value in contents.tensors.items() if key.startswith(VAE)}
        if not stored:
            return AbsentVAE(NO_VAE.format(name=path.name))
        vae = comfy.sd.VAE(sd={key: _read(VAE + key, tensor) for key, tensor in stored.items()})
        vae.throw_exception_if_invalid()
    vae.patcher.cached_patcher_init = (_vae_patcher, (path,))
    return vae


def load_clip(path: Path, other: Path | None = None, disable_dynamic: bool = False) -> comfy.sd.CLIP:
    """The text encoder in a checkpoint, or one that says what to download when it is used; with `other` that of another
    file. CheckpointError if that is not a whole Qwen3."""
    file = other or path
    with explained(file), opened((file,)) as contents:
        stored = weights(contents.tensors, "" if other else ENCODER)
        if not stored and other is None:
            return absent_clip(NO_ENCODER.format(name=path.name))
        sizes(stored)
        clip = clip_of({key: _read(key, tensor) for key, tensor in stored.items()}, disable_dynamic)
    clip.patcher.cached_patcher_init = (_clip_patcher, (path, other))
    return clip


def _read(key: str, tensor: Stored) -> Tensor:
    value = tensor.read()
    if not finite(value):
        raise FileError(f"its tensor {key} holds values that are not finite; it is damaged.")
    return value


# How new hosts ask again for patchers, without their dynamic offloading or for another device.


def _vae_patcher(path: Path, disable_dynamic: bool = False) -> comfy.model_patcher.ModelPatcher:
    return load_vae(path).patcher


def _clip_patcher(path: Path, other: Path | None, disable_dynamic: bool = False) -> comfy.model_patcher.ModelPatcher:
    return load_clip(path, other, disable_dynamic).patcher
