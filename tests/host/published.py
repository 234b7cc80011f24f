"""Small random files of published models where a host looks for them: checkpoints, VAEs, a text encoder."""

from pathlib import Path

import torch
from diffusers import AutoencoderKL
from encoders import write_clip
from host import Host
from published_files import FILES, write_published
from safetensors.torch import save_file

VAE, SDXL_VAE = "vae-ft-ema-560000-ema-pruned.safetensors", "sdxl_vae.safetensors"
CLIP = "DFN5B-CLIP-ViT-H-14-378"


def write_invae(folder: Path) -> AutoencoderKL:
    """SR-DiT's VAE at smaller widths: five levels, of which the deepest has attention."""
    torch.manual_seed(0)
    vae = AutoencoderKL(
        block_out_channels=(32, 32, 64, 64, 128), layers_per_block=2, latent_channels=32, scaling_factor=0.3099,
        down_block_types=("DownEncoderBlock2D",) * 4 + ("AttnDownEncoderBlock2D",),
        up_block_types=("AttnUpDecoderBlock2D",) + ("UpDecoderBlock2D",) * 4,
    ).eval()  # fmt: skip
    vae.save_pretrained(folder)
    return vae


def write_files(host: Host) -> None:
    """All of FILES, the VAEs and the text encoder, where the host looks for them."""
    models = host.directory / "models" / "diffusion_models"
    models.mkdir(parents=True, exist_ok=True)
    for name, spec in FILES.items():
        write_published(models / name, spec)
    torch.manual_seed(0)
    vae = AutoencoderKL(
        block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    )  # fmt: skip
    folder = host.directory / "models" / "vae"
    folder.mkdir(parents=True, exist_ok=True)
    for name in (VAE, SDXL_VAE):
        save_file(vae.half().state_dict(), folder / name)
    write_clip(host.directory / "models" / "text_encoders" / CLIP)
