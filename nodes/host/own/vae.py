"""Autoencoders as the host's VAE: none for models of pixels, and the deep compression autoencoder of Sana, whose
layers the host has, but loads for music only."""

import inspect
import json
from pathlib import Path
from typing import Any, NoReturn

import comfy.model_patcher
import comfy.sd
import torch
from comfy.ldm.ace.vae.autoencoder_dc import AutoencoderDC
from comfy.ldm.models.autoencoder import AutoencoderKL

from ....sparse_model.checkpoints.source import find
from ....sparse_model.checkpoints.spec import ModelSpec
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

NO_VAE = (
    "The file of this model holds no VAE: its latents are those of {name}. Load that with {node} and connect it "
    "instead of the loader's own output."
)
VAES = {
    "sd": ("Stable Diffusion 1.x (vae-ft-mse or vae-ft-ema)", "Load VAE"),
    "sdxl": ("Stable Diffusion XL", "Load VAE"),
    "flux": ("FLUX.1 (ae.safetensors)", "Load VAE"),
    "dcae": ("the DC-AE of the published model", "Sparse VAE Loader"),
}
"""Whose latents a model works on (spec.LATENTS), and what loads their VAE."""


def vae_of(spec: ModelSpec) -> "comfy.sd.VAE | AbsentVAE":
    """What decodes a model's pictures: the host's pixel space, or for latents one that says what to load."""
    if spec.latent == "pixels":
        return comfy.sd.VAE(sd={"pixel_space_vae": torch.tensor(1.0)})
    name, node = VAES.get(spec.latent, (f"its published model ({spec.latent})", "Load VAE"))
    return AbsentVAE(NO_VAE.format(name=name, node=node))


class AbsentVAE:
    """A VAE that can be passed on, and that raises `sentence` where one is needed."""

    def __init__(self, sentence: str):
        self.sentence = sentence

    def refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise ValueError(self.sentence)

    encode = decode = encode_tiled = decode_tiled = refuse
    spacial_compression_encode = spacial_compression_decode = temporal_compression_decode = refuse


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
        raise ValueError(f"'{folder.name}' is no whole {CLASS}: {error}") from error
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
