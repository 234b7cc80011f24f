"""The deep compression autoencoder of Sana as the host's VAE: the host has its layers, but loads it for music only."""

import inspect
from pathlib import Path

import comfy.model_patcher
import comfy.sd
from comfy.ldm.ace.vae.autoencoder_dc import AutoencoderDC
from comfy.ldm.models.autoencoder import AutoencoderKL
from comfy.model_management import InterruptProcessingException, throw_exception_if_processing_interrupted

from ....sparse_model.checkpoints.source import find
from ....sparse_model.files import FileError, printable, read_json, sentence
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
    config, sizes = config_of(folder) or {}, inspect.signature(AutoencoderDC).parameters
    try:
        # the model's latent format scales latents
        network = AutoencoderDC(**{key: config[key] for key in config if key in sizes} | {"scaling_factor": 1.0}).eval()
        state = network.state_dict()
        with opened(find(folder).files) as contents:
            missing = [key for key in state if key not in contents.tensors]
            if missing:
                raise FileError(f"it lacks {len(missing)} of {len(state)} tensors, such as {missing[0]}.")
            for key, value in state.items():
                throw_exception_if_processing_interrupted()
                stored = contents.tensors[key].read()
                if stored.shape != value.shape or not finite(stored):
                    raise FileError(f"its tensor {key} is of another size or holds values that are not finite.")
                value.copy_(stored)
        channels = int(config["latent_channels"])
    except InterruptProcessingException:
        raise
    except Exception as error:
        raise ValueError(f"'{printable(folder.name)}' is not a whole {CLASS}: {sentence(error)}") from error
    return _hosted(network, channels)


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
        config = read_json(folder / "config.json")
        return config if config["_class_name"] == CLASS else None
    except (FileError, KeyError, TypeError):
        return None
