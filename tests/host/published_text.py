"""Text-to-image models as their authors publish them, small and of random weights, where a host looks for them."""

import json
from pathlib import Path

import torch
from diffusers import AutoencoderDC, AutoencoderKL
from encoders import write_llama, write_qwen, write_t5gemma
from safetensors.torch import save_file

from sparse_model.checkpoints.checkpoint import build
from sparse_model.checkpoints.spec import ModelSpec
from sparse_model.method.prediction import Flow
from sparse_model.networks.nitro_dit import NitroDiTConfig
from sparse_model.networks.nitro_mmdit import NitroMMDiTConfig
from sparse_model.networks.prx import PRXConfig

TEXT_WIDTH = 12
LATENT = PRXConfig(width=32, depth=8, heads=2, mlp_ratio=2.0, text_width=TEXT_WIDTH)
COMPRESSED = PRXConfig(16, 1, 32, width=32, depth=8, heads=2, mlp_ratio=2.0, text_width=TEXT_WIDTH)
PIXEL = PRXConfig(1024, 16, 3, width=32, depth=8, heads=2, text_width=TEXT_WIDTH, bottleneck=6, sized=True)
NITRO = {"width": 64, "depth": 5, "heads": 1, "hidden": 64, "text_width": TEXT_WIDTH}
NITROS = {  # the published name -> its pipeline, its network and sizes, the shift of its scheduler
    "Nitro-T-0.6B": ("NitroDiTPipeline", "nitro-dit", NitroDiTConfig(**NITRO), 1.0),
    "Nitro-T-1.2B": ("NitroMMDiTPipeline", "nitro-mmdit", NitroMMDiTConfig(**NITRO, dual=2), 3.0),
}


def weights(config: PRXConfig | NitroDiTConfig | NitroMMDiTConfig, name: str = "prx") -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        key: (torch.randn(value.shape, generator=generator) * 0.15 + ("norm_" in key)).bfloat16()
        for key, value in build(ModelSpec(name, config, Flow())).state_dict().items()
    }


def write_prx(models: Path, name: str, shards: int = 1) -> str:
    """A snapshot of Photoroom/<name> without its VAE in diffusion_models; returns the name in the loader's list."""
    folder = models / "diffusion_models" / name
    write_t5gemma(folder, TEXT_WIDTH)
    return write_transformer(folder, weights(LATENT), shards).relative_to(models / "diffusion_models").as_posix()


def write_prx_dc_ae(models: Path, name: str) -> tuple[str, AutoencoderDC]:
    """The same of the model that works on latents of DC-AE, with its VAE; returns the VAE as well."""
    folder = models / "diffusion_models" / name
    write_t5gemma(folder, TEXT_WIDTH)
    vae = write_dc_ae(folder / "vae")
    path = write_transformer(folder, weights(COMPRESSED), shards=1)
    return path.relative_to(models / "diffusion_models").as_posix(), vae


def write_nitro(models: Path, name: str) -> str:
    """A snapshot of amd/<name> with the weights of Llama in its folder text_encoder; returns the transformer's name in
    the loader's list."""
    folder = models / "diffusion_models" / name
    pipeline, architecture, config, shift = NITROS[name]
    write_llama(folder, TEXT_WIDTH)
    write_dc_ae(folder / "vae")
    (folder / "scheduler").mkdir(exist_ok=True)
    scheduler = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": shift}
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler))
    (folder / "model_index.json").write_text(json.dumps({"_class_name": ["pipeline", pipeline]}))
    path = write_transformer(folder, weights(config, architecture), shards=1)
    return path.relative_to(models / "diffusion_models").as_posix()


def write_dc_ae(folder: Path) -> AutoencoderDC:
    """A deep compression autoencoder of 32 channels, 32 pixels to a pixel of its latent."""
    torch.manual_seed(0)
    vae = AutoencoderDC(
        encoder_block_types=("ResBlock",) * 3 + ("EfficientViTBlock",) * 3,
        decoder_block_types=("ResBlock",) * 3 + ("EfficientViTBlock",) * 3,
        encoder_block_out_channels=(32, 32, 32, 64, 64, 64),
        decoder_block_out_channels=(32, 32, 32, 64, 64, 64),
        encoder_layers_per_block=(1, 1, 1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1, 1, 1),
        downsample_block_type="conv",
        upsample_block_type="interpolate",
        scaling_factor=0.41407,
    ).eval()
    vae.save_pretrained(folder)
    return vae


def write_prxpixel(models: Path, name: str, shards: int = 2) -> str:
    """The same of the model that works on pixels."""
    folder = models / "diffusion_models" / name
    write_qwen(folder, TEXT_WIDTH)
    return write_transformer(folder, weights(PIXEL), shards).relative_to(models / "diffusion_models").as_posix()


def write_transformer(folder: Path, state: dict[str, torch.Tensor], shards: int) -> Path:
    """As diffusers saves a transformer: one file, or shards and their index."""
    folder, stem = folder / "transformer", "diffusion_pytorch_model"
    folder.mkdir(parents=True, exist_ok=True)
    if shards == 1:
        save_file(state, folder / f"{stem}.safetensors")
        return folder / f"{stem}.safetensors"
    places = {}
    for i in range(shards):
        file = f"{stem}-{i + 1:05}-of-{shards:05}.safetensors"
        part = {key: state[key] for key in sorted(state)[i::shards]}
        save_file(part, folder / file)
        places |= dict.fromkeys(part, file)
    index = folder / f"{stem}.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return index


def write_kl_f8_d16(folder: Path) -> AutoencoderKL:
    """A VAE of 16 channels whose levels are of other widths than those that the host's Load VAE knows."""
    torch.manual_seed(0)
    vae = AutoencoderKL(
        block_out_channels=(32, 32, 64, 128), layers_per_block=2, latent_channels=16, scaling_factor=0.2614,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    ).eval()  # fmt: skip
    vae.save_pretrained(folder)
    return vae


def write_flux_vae(path: Path) -> None:
    """The VAE of Flux at its full width, in the keys of diffusers."""
    torch.manual_seed(0)
    vae = AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=16,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(vae.half().state_dict(), path)
