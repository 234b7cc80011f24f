"""From a checkpoint file to the host's model patcher."""

import os

import comfy.model_management as management
import comfy.model_patcher
import torch
from comfy.patcher_extension import WrappersMP

from ....sparse_model.checkpoints.checkpoint import Checkpoint, CheckpointError, fill, open_checkpoint
from ....sparse_model.checkpoints.families import ForeignFile
from ....sparse_model.checkpoints.source import INDEX, SHARD
from ..notices import KEY
from .folders import model_path
from .model import Config, SparseModel, begin_run

WEIGHT_TYPES = {"default": None, "fp8_e4m3fn": torch.float8_e4m3fn, "fp8_e5m2": torch.float8_e5m2}

ADVICE = {
    "LoRA": "Load the model that it was made for and connect Load LoRA behind it.",
    "U-Net": "It has no tokens to leave out; load it with the stock loaders.",
    "VAE": "Move it to models/vae and load it with Load VAE.",
    "text encoder": "Move it to models/text_encoders.",
}


def load(path: str, weight_type: str = "default", disable_dynamic: bool = False) -> comfy.model_patcher.ModelPatcher:
    """A model ready for the host, on its own terms of precision and offloading.

    CheckpointError if the file cannot become one. `disable_dynamic` is how new hosts ask again for a patcher without
    their dynamic offloading.
    """
    try:
        with open_checkpoint(path) as checkpoint:
            model = _loaded(checkpoint, WEIGHT_TYPES[weight_type])
    except CheckpointError as error:
        if isinstance(error.__cause__, ForeignFile):
            raise CheckpointError(f"{error} {ADVICE[error.__cause__.kind]}") from error
        raise
    plain = comfy.model_patcher.ModelPatcher
    patcher_class = plain if disable_dynamic else getattr(comfy.model_patcher, "CoreModelPatcher", plain)
    patcher = patcher_class(
        model, load_device=management.get_torch_device(), offload_device=management.unet_offload_device()
    )
    patcher.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, KEY, begin_run)
    patcher.cached_patcher_init = (load, (path, weight_type))
    return patcher


def _loaded(checkpoint: Checkpoint, dtype: torch.dtype | None) -> SparseModel:
    """A model with the checkpoint's weights in `dtype`, or in what the host finds best for them. It can be stopped
    between two tensors, as everything that the host runs."""
    config = Config(checkpoint.spec)
    device, offload = management.get_torch_device(), management.unet_offload_device()
    dtype = dtype or management.unet_dtype(
        model_params=checkpoint.parameters,
        supported_dtypes=config.supported_inference_dtypes,
        weight_dtype=checkpoint.dtype,
    )
    config.set_inference_dtype(dtype, management.unet_manual_cast(dtype, device, config.supported_inference_dtypes))
    model = config.get_model({}, device=torch.device("meta"))
    model.device = offload
    fill(model.diffusion_model, checkpoint, dtype, offload, management.throw_exception_if_processing_interrupted)
    if hasattr(management, "archive_model_dtypes"):  # new hosts move weights in the precision that was noted last
        management.archive_model_dtypes(model.diffusion_model)
    return model


def checkpoint_names(names: list[str]) -> list[str]:
    """The host's list of files as workflows of every system spell them, with each sharded model once: its index if that
    is there, else its first shard."""
    shown = []
    for name in (name.replace(os.sep, "/") for name in names):
        match = SHARD.search(name)
        if match:
            index = SHARD.sub("", name) + INDEX
            if model_path(index):
                name = index
            elif int(match[1]) != 1:
                continue
        if name not in shown:
            shown.append(name)
    return shown


def listed_name(name: str, names: list[str]) -> str:
    """A checkpoint's name as it is listed, whichever system spelled it; ValueError if it is not there."""
    for spelled in (name, name.replace("\\", "/")):
        if spelled in names:
            return spelled
    raise ValueError(f"There is no checkpoint '{name}' in models/diffusion_models; put it there, or choose another.")
