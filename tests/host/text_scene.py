"""A graph from a prompt to a latent, and the files of PRX to try it with: diffusers' sharded folder, and PRXPixel as a
single file in the keys of Photoroom's repository."""

from pathlib import Path
from typing import Any

import published_text as published
import pytest
import torch
from encoders import write_qwen
from graphs import Graph, write_checkpoint
from published_text import TEXT_WIDTH, weights, write_flux_vae, write_prx
from safetensors.torch import save_file

LATENT = "prx-512-t2i/transformer/diffusion_pytorch_model.safetensors.index.json"
PIXEL = "prxpixel-t2i.safetensors"
T5GEMMA, QWEN = "prx-512-t2i/text_encoder", "prxpixel-t2i/text_encoder"
MODELS = [pytest.param(LATENT, T5GEMMA, id="latent"), pytest.param(PIXEL, QWEN, id="pixels")]
PHOTOROOM = (  # how the repository Photoroom/PRX calls what diffusers calls so
    ("attention.norm_q.weight", "qk_norm.query_norm.scale"),
    ("attention.norm_k.weight", "qk_norm.key_norm.scale"),
    ("attention.norm_added_k.weight", "k_norm.scale"),
    ("attention.to_out.0.", "attn_out."),
    ("attention.", ""),
)


def photoroom(key: str) -> str:
    for theirs, ours in PHOTOROOM:
        key = key.replace(theirs, ours)
    return key


def write_files(models: Path) -> None:
    folder = models / "diffusion_models"
    assert write_prx(models, "prx-512-t2i", shards=2) == LATENT
    save_file({photoroom(key): value for key, value in weights(published.PIXEL).items()}, folder / PIXEL)
    write_qwen(models / "text_encoders" / "prxpixel-t2i", TEXT_WIDTH)
    write_qwen(models / "text_encoders" / "other", 2 * TEXT_WIDTH)
    write_flux_vae(models / "vae" / "flux.safetensors")
    write_checkpoint(folder / "tiny.safetensors")
    layer, width = "diffusion_model.blocks.3.attention.img_qkv_proj", published.LATENT.width
    (models / "loras").mkdir(exist_ok=True)
    generator = torch.Generator().manual_seed(1)
    lora = {"up": (3 * width, 4), "down": (4, width)}
    save_file(
        {f"{layer}.lora_{part}.weight": torch.randn(shape, generator=generator) for part, shape in lora.items()},
        models / "loras" / "prx.safetensors",
    )
    (folder / "lost").mkdir()
    shard = "diffusion_pytorch_model-00001-of-00002.safetensors"
    (folder / "lost" / shard).write_bytes((folder / "prx-512-t2i" / "transformer" / shard).read_bytes())


class Scene:
    """Loader, prompt, empty prompt, and an empty latent of 128 pixels a side."""

    def __init__(self, name: str = LATENT, encoder: str = T5GEMMA, prompt: str = "a lion at sunset", **size: int):
        graph = self.graph = Graph()
        self.model = graph.model(name)
        self.clip = graph.add("SparseTextEncoder", folder=encoder)
        self.positive, self.negative = (graph.add("CLIPTextEncode", clip=self.clip, text=t) for t in (prompt, ""))
        size = {"batch_size": 1, "width": 128, "height": 128, **size}
        self.latent = graph.add("EmptySparseLatent", model=self.model, **size)

    def sampled(self, model: list | None = None, **values: Any) -> list:
        """28 steps are published; 4 show the same. The scheduler "normal" is diffusers' own."""
        values = {"scheduler": "normal", "latent": self.latent, **values}
        return self.graph.sampled(model or self.model, self.positive, self.negative, **values)

    def guided(self, **values: Any) -> list:
        schedule = self.graph.sparsity(**values)
        return self.graph.add("SparseGuidance", model=self.model, sparsity=schedule)


def picture(scene: Scene, samples: list, vae: str | list) -> str:
    loader = scene.graph.add("VAELoader", vae_name=vae) if isinstance(vae, str) else vae
    decoded = scene.graph.add("VAEDecode", samples=samples, vae=loader)
    return scene.graph.add("SaveImage", images=decoded, filename_prefix="text")[0]
