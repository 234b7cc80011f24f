"""Text-conditional models on a real host, from the files in which they are published, with random weights: PRX as
diffusers' sharded folder with the VAE of Flux, and PRXPixel as a single file in the keys of Photoroom's repository."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from graphs import Graph, equal, run, sampled_latents, write_checkpoint
from host import Host
from safetensors.torch import save_file

sys.path.append(str(Path(__file__).resolve().parents[1]))
from encoders import write_qwen, write_t5gemma

from sparse_model.models.prx import PRX, PRXConfig

LATENT = "prx-512-t2i/transformer/diffusion_pytorch_model.safetensors.index.json"
PIXEL = "prxpixel-t2i.safetensors"
T5GEMMA, QWEN = "prx-512-t2i/text_encoder", "prxpixel-t2i/text_encoder"
MODELS = [(LATENT, T5GEMMA), (PIXEL, QWEN)]
WIDTH = 12  # of the text


def weights(config: PRXConfig) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        key: torch.randn(value.shape, generator=generator) * 0.15 + ("norm_" in key)
        for key, value in PRX(config).state_dict().items()
    }


@pytest.fixture(scope="session", autouse=True)
def files(host: Host) -> None:
    models = host.directory / "models"
    folder = models / "diffusion_models" / "prx-512-t2i" / "transformer"
    folder.mkdir(parents=True)
    state = weights(PRXConfig(width=32, depth=8, heads=2, mlp_ratio=2.0, text_width=WIDTH))
    places = {}
    for i in range(2):
        name = f"diffusion_pytorch_model-{i + 1:05}-of-00002.safetensors"
        part = {key: state[key].bfloat16() for key in sorted(state)[i::2]}
        save_file(part, folder / name)
        places |= dict.fromkeys(part, name)
    (folder / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    (models / "diffusion_models" / "lost").mkdir()
    lost = models / "diffusion_models" / "lost" / name.replace("00002-of", "00001-of")
    lost.write_bytes((folder / name).read_bytes())

    pixel = weights(PRXConfig(1024, 16, 3, width=32, depth=8, heads=2, text_width=WIDTH, bottleneck=6, sized=True))
    save_file({photoroom(key): value for key, value in pixel.items()}, models / "diffusion_models" / PIXEL)
    write_checkpoint(models / "diffusion_models" / "tiny.safetensors")
    write_t5gemma(models / "text_encoders" / "prx-512-t2i", WIDTH)
    write_qwen(models / "text_encoders" / "prxpixel-t2i", WIDTH)
    write_qwen(models / "text_encoders" / "other", 2 * WIDTH)
    write_vae(models / "vae" / "flux.safetensors")


def photoroom(key: str) -> str:
    """The key of a block's weight in Photoroom's repository, for that in diffusers."""
    for theirs, ours in (
        ("attention.norm_q.weight", "qk_norm.query_norm.scale"),
        ("attention.norm_k.weight", "qk_norm.key_norm.scale"),
        ("attention.norm_added_k.weight", "k_norm.scale"),
        ("attention.to_out.0.", "attn_out."),
        ("attention.", ""),
    ):
        key = key.replace(theirs, ours)
    return key


def write_vae(path: Path) -> None:
    """The VAE of Flux at its full width, as diffusers stores it."""
    from diffusers import AutoencoderKL

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
    save_file({key: value.half() for key, value in vae.state_dict().items()}, path)


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


def picture(scene: Scene, samples: list, vae: str) -> str:
    loader = scene.graph.add("VAELoader", vae_name=vae)
    decoded = scene.graph.add("VAEDecode", samples=samples, vae=loader)
    return scene.graph.add("SaveImage", images=decoded, filename_prefix="text")[0]


@pytest.mark.parametrize(("name", "encoder"), MODELS)
def test_from_published_files_to_a_picture(host: Host, name: str, encoder: str) -> None:
    vae = "flux.safetensors" if name == LATENT else "pixel_space"
    scene = Scene(name, encoder)
    plain = picture(scene, scene.sampled(cfg=5.0), vae)
    sg = picture(scene, scene.sampled(scene.guided()), vae)
    result = run(host, scene.graph)
    images = [result.pixels(node) for node in (plain, sg)]
    assert all(image.shape == (1, 128, 128, 3) and image.std() > 1 for image in images)
    assert (images[0] != images[1]).any()


@pytest.mark.parametrize(("name", "encoder"), MODELS)
def test_guidance_of_text(host: Host, name: str, encoder: str) -> None:
    """Nothing dropped is CFG bit for bit; prompts matter; one seed is one picture."""
    scene = Scene(name, encoder)
    graph = scene.graph
    dense = {"rule": "CFG + SG", "gamma_strong_start": 0.0, "gamma_weak_start": 0.0}
    cfg, ours = graph.save(scene.sampled()), graph.save(scene.sampled(scene.guided(**dense)))
    sg, again = (graph.save(scene.sampled(scene.guided())) for _ in range(2))
    other = graph.add("CLIPTextEncode", clip=scene.clip, text="the golden savanna")
    both = graph.save(scene.sampled(scene.guided(rule="CFG + SG", gamma_strong_start=0.0)))
    swapped = graph.save(graph.sampled(scene.guided(), other, scene.negative, scene.latent, scheduler="normal"))
    found = sampled_latents(host, graph)
    assert equal(found, cfg, ours) and equal(found, sg, again)
    assert not any(equal(found, a, b) for a, b in ((cfg, sg), (sg, swapped), (sg, both), (both, cfg)))


def test_batches_and_sizes(host: Host) -> None:
    """Two pictures of another shape, and one of 32 pixels a side."""
    found = {}
    for batch, width, height in ((2, 192, 96), (1, 32, 32)):
        scene = Scene(batch_size=batch, width=width, height=height)
        node = scene.graph.save(scene.sampled(scene.guided()))
        found[batch] = sampled_latents(host, scene.graph)[node]
    assert found[2].shape == (2, 16, 12, 24) and found[1].shape == (1, 16, 4, 4)
    assert not torch.equal(found[2][0], found[2][1])


def test_what_the_loader_says(host: Host) -> None:
    options = host.object_info("SparseModelLoader")["input"]["required"]["model_name"]
    names = options[0] if isinstance(options[0], list) else options[1]["options"]
    assert LATENT in names and not any("-of-" in name for name in names if name.startswith("prx"))
    graph = Graph()
    model = graph.model(LATENT)
    graph.add("PreviewAny", source=[model[0], 1])
    text = json.dumps(run(host, graph).outputs)
    for part in ("prx-512-t2i", "layers 2 to 4 routed", "records no route", "prompts of 256 tokens", "28 steps"):
        assert part in text


def test_prompts_longer_than_the_model_reads_are_kept_whole(host: Host) -> None:
    """Conditioning (Concat) makes a longer prompt; its length differs from that of the empty one."""
    scene = Scene()
    other = scene.graph.add("CLIPTextEncode", clip=scene.clip, text="the golden savanna")
    short = scene.graph.save(scene.sampled())
    scene.positive = scene.graph.add("ConditioningConcat", conditioning_to=scene.positive, conditioning_from=other)
    long = scene.graph.save(scene.sampled())
    assert not equal(sampled_latents(host, scene.graph), short, long)


def sentence(host: Host, graph: Graph) -> str:
    result = host.run(graph.nodes)
    assert result.error is not None and result.error["type"] == "execution_error", result.error
    text = result.error["exception_message"].strip()
    assert "\n" not in text and text[-1] in ".?", text
    return text


def test_the_text_encoder_of_another_model(host: Host) -> None:
    scene = Scene(encoder="other/text_encoder")
    scene.graph.save(scene.sampled())
    text = sentence(host, scene.graph)
    assert "has 24 channels but this model reads text of 12" in text


def test_labels_for_a_text_model_and_text_for_a_label_model(host: Host) -> None:
    graph = Graph()
    graph.add("PreviewAny", source=graph.labels(graph.model(LATENT))[0])
    assert "knows no labels; it reads text" in sentence(host, graph)
    scene = Scene("tiny.safetensors", width=0, height=0)
    scene.graph.save(scene.sampled())
    assert "12 channels but this class-conditional model" in sentence(host, scene.graph)


def test_the_empty_prompt_must_be_given(host: Host) -> None:
    scene = Scene()
    schedule = scene.graph.sparsity(rule="CFG + SG")
    guider = scene.graph.add("SparseGuider", model=scene.model, positive=scene.positive, sparsity=schedule)
    scene.graph.save(scene.graph.advanced(guider, scene.latent, scene.model))
    assert "connect a CLIP Text Encode without text as negative" in sentence(host, scene.graph)


def test_random_labels_for_a_text_model(host: Host) -> None:
    scene = Scene()
    scene.graph.save(scene.sampled(scene.guided(rule="ICG")))
    assert "needs a class-conditional model" in sentence(host, scene.graph)


def test_a_missing_shard(host: Host) -> None:
    graph = Graph()
    graph.add("PreviewAny", source=[graph.model("lost/diffusion_pytorch_model-00001-of-00002.safetensors")[0], 1])
    text = sentence(host, graph)
    assert "lacks its shard diffusion_pytorch_model-00002-of-00002.safetensors (1 of 2 are there)" in text


@pytest.mark.parametrize(("name", "encoder"), MODELS)
def test_a_size_that_the_model_cannot_take(host: Host, name: str, encoder: str) -> None:
    scene = Scene(name, encoder, width=120)
    scene.graph.save(scene.sampled())
    assert "A width of 120 pixels does not divide into patches of 16; use 128" in sentence(host, scene.graph)
