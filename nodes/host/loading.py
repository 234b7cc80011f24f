"""From a checkpoint file to the host's model patcher."""

from pathlib import Path
from typing import Any

import comfy.model_management as management
import comfy.model_patcher
import comfy.utils
import torch

from ...sparse_model.checkpoints import read
from .model import Config

WEIGHT_TYPES = {"default": None, "fp8_e4m3fn": torch.float8_e4m3fn, "fp8_e5m2": torch.float8_e5m2}


def load(path: str, weight_type: str = "default", disable_dynamic: bool = False) -> comfy.model_patcher.ModelPatcher:
    """A model ready for the host, on its own terms of precision and offloading.

    CheckpointError if the file cannot become one. `disable_dynamic` is how new hosts ask again for a patcher without
    their dynamic offloading.
    """
    spec, state = read(Path(path))
    config = Config(spec)
    device, offload = management.get_torch_device(), management.unet_offload_device()
    dtype = WEIGHT_TYPES[weight_type] or management.unet_dtype(
        model_params=comfy.utils.calculate_parameters(state),
        supported_dtypes=config.supported_inference_dtypes,
        weight_dtype=comfy.utils.weight_dtype(state),
    )
    config.set_inference_dtype(dtype, management.unet_manual_cast(dtype, device, config.supported_inference_dtypes))
    model = config.get_model(state)
    plain = comfy.model_patcher.ModelPatcher
    patcher_class = plain if disable_dynamic else getattr(comfy.model_patcher, "CoreModelPatcher", plain)
    patcher = patcher_class(model, load_device=device, offload_device=offload)
    if not management.is_device_cpu(offload):
        model.to(offload)
    model.load_model_weights(state, **_assignment(patcher))
    patcher.cached_patcher_init = (load, (path, weight_type))
    return patcher


def _assignment(patcher: Any) -> dict[str, bool]:
    """New hosts with dynamic offloading make layers without weights, which are then assigned instead of copied."""
    return {"assign": True} if getattr(patcher, "is_dynamic", lambda: False)() else {}
