"""From a checkpoint file to the host's model patcher."""

from pathlib import Path

import comfy.model_management as management
import comfy.model_patcher
import comfy.utils
import folder_paths
import torch

from ....sparse_model.checkpoints.checkpoint import CheckpointError, fill, read
from ....sparse_model.checkpoints.families import ForeignFile
from ....sparse_model.checkpoints.source import INDEX, SHARD
from .model import Config

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
        spec, state = read(Path(path))
    except CheckpointError as error:
        if isinstance(error.__cause__, ForeignFile):
            raise CheckpointError(f"{error} {ADVICE[error.__cause__.kind]}") from error
        raise
    config = Config(spec)
    device, offload = management.get_torch_device(), management.unet_offload_device()
    dtype = WEIGHT_TYPES[weight_type] or management.unet_dtype(
        model_params=comfy.utils.calculate_parameters(state),
        supported_dtypes=config.supported_inference_dtypes,
        weight_dtype=comfy.utils.weight_dtype(state),
    )
    config.set_inference_dtype(dtype, management.unet_manual_cast(dtype, device, config.supported_inference_dtypes))
    model = config.get_model(state, device=torch.device("meta"))
    model.device = offload
    fill(model.diffusion_model, state, dtype, offload)
    plain = comfy.model_patcher.ModelPatcher
    patcher_class = plain if disable_dynamic else getattr(comfy.model_patcher, "CoreModelPatcher", plain)
    patcher = patcher_class(model, load_device=device, offload_device=offload)
    patcher.cached_patcher_init = (load, (path, weight_type))
    return patcher


def checkpoint_names(names: list[str]) -> list[str]:
    """The host's list of files with each sharded model once: its index if that is there, else its first shard."""
    shown = []
    for name in names:
        match = SHARD.search(name)
        if match:
            index = SHARD.sub("", name) + INDEX
            if folder_paths.get_full_path("diffusion_models", index):
                name = index
            elif int(match[1]) != 1:
                continue
        if name not in shown:
            shown.append(name)
    return shown
