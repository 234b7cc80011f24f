"""HDM as its authors publish it, small and of random weights: network, VAE and text encoder in one file."""

from pathlib import Path

import torch
from diffusers import AutoencoderKL
from safetensors.torch import save_file
from torch import Tensor

from sparse_model.networks.xut import XUT, XUTConfig

TEXT_WIDTH = 32
CONFIG = XUTConfig(width=48, heads=2, hidden=64, text_width=TEXT_WIDTH, levels=2, after=2)
WORDS = 151936  # of Qwen's tokenizer, which the hosts have


def network() -> dict[str, Tensor]:
    """Weights that react to all inputs: norms near 1, angles of some radians."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for key, value in XUT(CONFIG).state_dict().items():
        noise = torch.randn(value.shape, generator=generator) * 0.15
        state[key] = noise + (
            key.endswith(("norm.weight", "freqs")) or (key.startswith("shared_adaln") and ".0.w" in key)
        )
    return state


def text_encoder() -> dict[str, Tensor]:
    """The weights of a Qwen3 by the keys of transformers' Qwen3Model."""
    from transformers.models.qwen3 import Qwen3Config, Qwen3Model

    sizes = {"vocab_size": WORDS, "hidden_size": TEXT_WIDTH, "intermediate_size": 48, "head_dim": 128}
    layers = {"num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1}
    generator = torch.Generator().manual_seed(1)
    return {
        key: torch.randn(value.shape, generator=generator) * 0.3 + (value.ndim == 1)
        for key, value in Qwen3Model(Qwen3Config(**sizes, **layers)).state_dict().items()
    }


def vae() -> dict[str, Tensor]:
    """An autoencoder of SDXL's sizes, by the keys of diffusers."""
    torch.manual_seed(0)
    return AutoencoderKL(
        block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    ).state_dict()  # fmt: skip


def write_hdm(path: Path, *, text: bool = False, picture: bool = True) -> None:
    """What the authors' converter writes: the trainer's state in half precision, as a rule without `te.*`."""
    parts = {"unet.model.": {**network(), "time_emb.freqs": torch.ones(1, CONFIG.width // 2)}}
    if picture:
        parts |= {"vae.": vae(), "": {"vae_mean": torch.zeros(1, 4, 1, 1), "vae_std": torch.ones(1, 4, 1, 1)}}
    if text:
        parts["te.text_models.0."] = text_encoder()
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({prefix + key: value.half() for prefix, part in parts.items() for key, value in part.items()}, path)


def write_text_encoder(path: Path) -> None:
    """model.safetensors as it lies in Qwen/Qwen3-0.6B."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({f"model.{key}": value.half() for key, value in text_encoder().items()}, path, {"format": "pt"})
