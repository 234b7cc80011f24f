"""The deep compression autoencoder of Sana as the host's VAE: the host has its layers, but loads it for music only."""

import inspect
import json
from pathlib import Path

import comfy.model_patcher
import comfy.sd
from comfy.ldm.ace.vae.autoencoder_dc import AutoencoderDC
from comfy.ldm.models.autoencoder import AutoencoderKL

from ....sparse_model.checkpoints.source import find
from ....sparse_model.tensors import finite, opened

CLASS = "AutoencoderDC"
# The smallest network that the host makes a VAE object around; ours takes its place.
STAND_IN = {
    "embed_dim": 4,
    "ddconfig": {
        "double_z": True, "z_channels": 4, "resolution": 8, "in_channels": 3, "out_ch": 3, "ch": 32, "ch_mult": [1],
        "num_res_blocks": 1, "attn_resolutions": [], "dropout": 0.0,
    },
}  # fmt: skip


def load_vae(folder: Path) -> comfy.sd.VAE:
    """A VAE from config.json and safetensors of a diffusers folder; ValueError in one sentence if it is damaged."""
    config, known = config_of(folder) or {}, inspect.signature(AutoencoderDC).parameters
    sizes = {key: value for key, value in config.items() if key in known}
    try:
        network = AutoencoderDC(**{**sizes, "scaling_factor": 1.0}).eval()  # the model's latent format scales latents
        with opened(find(folder).files) as contents:
            state = {key: tensor.read() for key, tensor in contents.tensors.items()}
        wanted = network.state_dict()
        missing = [key for key in wanted if key not in state]
        if missing:
            raise ValueError(f"it lacks {len(missing)} of {len(wanted)} tensors, such as {missing[0]}.")
        damaged = [key for key in wanted if state[key].shape != wanted[key].shape or not finite(state[key])]
        if damaged:
            raise ValueError(f"its tensor {damaged[0]} is of another size or holds values that are not finite.")
        network.load_state_dict({key: state[key] for key in wanted})
    except (ValueError, TypeError, OSError) as error:
        raise ValueError(f"'{folder.name}' is not a complete {CLASS}: {error}") from error
    return _hosted(network, int(config["latent_channels"]))


def _hosted(network: AutoencoderDC, channels: int) -> comfy.sd.VAE:
    vae = comfy.sd.VAE(sd=AutoencoderKL(**STAND_IN).state_dict(), config={"params": STAND_IN})
    ratio = network.spatial_compression_ratio
    vae.downscale_ratio = vae.upscale_ratio = ratio
    vae.latent_channels, vae.size = channels, None
    decoding = vae.memory_used_decode
    vae.memory_used_decode = lambda shape, dtype: decoding(shape, dtype) * (ratio / 8) ** 2
    vae.first_stage_model = network.to(vae.vae_dtype)
    patcher = comfy.model_patcher.ModelPatcher
    vae.patcher = patcher(network, load_device=vae.device, offload_device=vae.patcher.offload_device)
    return vae


def config_of(folder: Path) -> dict | None:
    """What config.json says, if it is that of such an autoencoder."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return config if config["_class_name"] == CLASS else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
