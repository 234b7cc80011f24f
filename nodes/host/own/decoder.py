"""What decodes the pictures of a model whose file holds no autoencoder."""

from typing import Any, NoReturn

import comfy.sd
import torch

from ....sparse_model.checkpoints.spec import ModelSpec

NO_VAE = (
    "The file of this model holds no VAE: its latents are those of {name}. Load that with {node} and connect it "
    "instead of the loader's own output."
)
VAES = {
    "sd": ("Stable Diffusion 1.x (vae-ft-mse or vae-ft-ema)", "Load VAE"),
    "sdxl": ("Stable Diffusion XL", "Load VAE"),
    "flux": ("FLUX.1 (ae.safetensors)", "Load VAE"),
    "dcae": ("the DC-AE of the published model", "Sparse VAE Loader"),
    "kl-f8-d16": ("ostris/vae-kl-f8-d16", "Sparse VAE Loader"),
    "invae": ("REPA-E/e2e-invae-hf", "Sparse VAE Loader"),
    "eq-sdxl": ("KBlueLeaf/EQ-SDXL-VAE", "Load VAE"),
}
"""Whose latents a model works on (spec.LATENTS), and what loads their VAE."""


class AbsentVAE:
    """A VAE that can be passed on, and that raises `sentence` where one is needed."""

    def __init__(self, sentence: str):
        self.sentence = sentence

    def refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise ValueError(self.sentence)

    encode = decode = encode_tiled = decode_tiled = refuse
    spacial_compression_encode = spacial_compression_decode = temporal_compression_decode = refuse


def vae_of(spec: ModelSpec) -> comfy.sd.VAE | AbsentVAE:
    """The host's pixel space for a model of pixels; for one of latents a VAE that says what to load."""
    if spec.latent == "pixels":
        return comfy.sd.VAE(sd={"pixel_space_vae": torch.tensor(1.0)})
    name, node = VAES.get(spec.latent, (f"its published model ({spec.latent})", "Load VAE"))
    return AbsentVAE(NO_VAE.format(name=name, node=node))
