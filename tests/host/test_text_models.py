"""Text-conditional models on a real host, from the files in which they are published, with random weights: PRX as
diffusers' sharded folder with the VAE of Flux, and PRXPixel as a single file in the keys of Photoroom's repository."""

import json
from dataclasses import replace
from typing import Any

import published_text as published
import pytest
import torch
from encoders import write_clip, write_qwen
from graphs import Graph, equal, latents, run, sampled_latents, write_checkpoint
from host import Host
from published_files import FILES, write_published
from published_text import (
    NITROS,
    TEXT_WIDTH,
    weights,
    write_flux_vae,
    write_kl_f8_d16,
    write_nitro,
    write_prx,
    write_prx_dc_ae,
)
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


@pytest.fixture(scope="session", autouse=True)
def files(host: Host) -> None:
    models = host.directory / "models"
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


def test_latents_of_dc_ae(host: Host) -> None:
    """From a published folder to a picture, which is that of diffusers' own autoencoder, and back to a latent."""
    name, theirs = write_prx_dc_ae(host.directory / "models", "prx-512-t2i-dc-ae")
    scene = Scene(name, "prx-512-t2i-dc-ae/text_encoder", width=160, height=96)
    graph = scene.graph
    samples = scene.sampled(scene.guided())
    latent = graph.save(samples)
    vae = graph.add("SparseVAELoader", folder="prx-512-t2i-dc-ae/vae")
    decoded = graph.add("VAEDecode", samples=samples, vae=vae)
    shown = graph.add("SaveImage", images=decoded, filename_prefix="dcae")[0]
    again = graph.save(graph.add("VAEEncode", pixels=decoded, vae=vae))
    tiled = graph.add("VAEDecodeTiled", samples=samples, vae=vae, tile_size=512, overlap=64, temporal_size=64,
                      temporal_overlap=8)  # fmt: skip
    tiles = graph.add("SaveImage", images=tiled, filename_prefix="dcae-tiled")[0]
    result = run(host, graph)
    found = latents(host, result)
    assert found[latent].shape == (1, 32, 3, 5)
    with torch.no_grad():
        picture = theirs.decode(found[latent]).sample
        encoded = theirs.encode(picture.clamp(-1, 1)).latent
    expected = ((picture + 1) / 2).clamp(0, 1)[0].permute(1, 2, 0)
    pixels = torch.from_numpy(result.pixels(shown)[0]) / 255
    assert expected.std() > 0.01 and (pixels - expected).abs().max() < 1.5 / 255
    assert (found[again] - encoded).abs().max() / encoded.abs().max() < 1e-3
    assert result.pixels(tiles).shape == (1, 96, 160, 3)


@pytest.mark.parametrize("name", NITROS)
def test_nitro_from_its_folder_to_a_picture(host: Host, name: str) -> None:
    """At the published settings, under its mask and under a route in the place of that."""
    scene = Scene(write_nitro(host.directory / "models", name), f"{name}/text_encoder", "A <b>lion</b> at sunset")
    graph = scene.graph
    published = {"negative": scene.negative, "preset": "from the model", "scheduler": "normal"}
    samples = graph.sparse_sampled(scene.model, scene.positive, scene.latent, **published)
    vae = graph.add("SparseVAELoader", folder=f"{name}/vae")
    shown = picture(scene, samples, vae)
    routed = graph.add("TokenRoute", model=scene.model, route="custom", start_layer=1, end_layer=3, ratio=0.5)
    other = graph.add("CLIPTextEncode", clip=scene.clip, text="a lion at sunset")
    guided, masked = scene.guided(), scene.guided(rule="CFG + SG")
    schedule = graph.sparsity()
    saved = [
        graph.save(node)
        for node in (
            samples,
            scene.sampled(cfg=4.0),
            graph.sparse_sampled(scene.model, other, scene.latent, **published),
            scene.sampled(graph.add("SparseGuidance", model=routed, sparsity=schedule)),
            scene.sampled(guided),
            scene.sampled(masked),
        )
    ]
    result = run(host, graph)
    found = latents(host, result)
    plain, cfg, cleaned, *sparse = saved
    about = result.outputs[scene.model[0]]["text"][0]
    assert "masked at ratio 0.5; flow of velocity; prompts of 256 tokens from meta-llama/Llama-3.2-1B" in about
    assert "omega 4 at the start, 20 steps" in about and "get no prediction" in about
    assert found[plain].shape == (1, 32, 4, 4) and torch.allclose(found[plain], found[cfg], atol=1e-4)
    assert equal(found, plain, cleaned) == (name == "Nitro-T-0.6B"), "the smaller one's pipeline alone cleans prompts"
    different = [plain, *sparse]
    for i, a in enumerate(different):
        assert not any(torch.allclose(found[a], found[b], atol=1e-3) for b in different[i + 1 :])
    pixels = result.pixels(shown)
    assert pixels.shape == (1, 128, 128, 3) and pixels.std() > 1


def test_latents_of_16_channels(host: Host) -> None:
    """MicroDiT's other autoencoder: pictures are diffusers' own, of latents at its published scale."""
    models = host.directory / "models"
    theirs = write_kl_f8_d16(models / "vae" / "vae-kl-f8-d16")
    name, spec = "dit_16_channel_37M_real_and_synthetic_data.pt", FILES["dit_4_channel_37M_real_and_synthetic_data.pt"]
    write_published(models / "diffusion_models" / name, replace(spec, config=replace(spec.config, in_channels=16)))
    write_clip(models / "text_encoders" / "clip-of-microdit")
    scene = Scene(name, "clip-of-microdit", width=96, height=64)
    graph = scene.graph
    samples = scene.sampled(cfg=5.0, scheduler="karras")
    latent = graph.save(samples)
    vae = graph.add("SparseVAELoader", folder="vae-kl-f8-d16")
    decoded = graph.add("VAEDecode", samples=samples, vae=vae)
    shown = graph.add("SaveImage", images=decoded, filename_prefix="kl")[0]
    again = graph.save(graph.add("VAEEncode", pixels=decoded, vae=vae))
    result = run(host, graph)
    found = latents(host, result)
    assert found[latent].shape == (1, 16, 8, 12)
    with torch.no_grad():
        picture = theirs.decode(found[latent]).sample
        encoded = theirs.encode(picture.clamp(-1, 1)).latent_dist.mean
    expected = ((picture + 1) / 2).clamp(0, 1)[0].permute(1, 2, 0)
    pixels = torch.from_numpy(result.pixels(shown)[0]) / 255
    assert expected.std() > 0.01 and (pixels - expected).abs().max() < 1.5 / 255
    assert found[again].shape == encoded.shape


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
    assert "its shard diffusion_pytorch_model-00002-of-00002.safetensors is missing (1 of 2 are there)" in text


@pytest.mark.parametrize(("name", "encoder"), MODELS)
def test_a_size_that_the_model_cannot_take(host: Host, name: str, encoder: str) -> None:
    scene = Scene(name, encoder, width=120)
    scene.graph.save(scene.sampled())
    assert "A width of 120 pixels does not divide into patches of 16; use 128" in sentence(host, scene.graph)


def test_a_dc_ae_that_is_not_whole(host: Host) -> None:
    folder = host.directory / "models" / "vae" / "halved"
    _, theirs = write_prx_dc_ae(host.directory / "models", "other-dc-ae")
    theirs.save_pretrained(folder)
    state = {key: value for key, value in theirs.state_dict().items() if key.startswith("encoder.")}
    save_file(state, folder / "diffusion_pytorch_model.safetensors")
    graph = Graph()
    samples = graph.add("EmptyLatentImage", width=64, height=64, batch_size=1)
    vae = graph.add("SparseVAELoader", folder="halved")
    graph.add("PreviewImage", images=graph.add("VAEDecode", samples=samples, vae=vae))
    text = sentence(host, graph)
    assert "'halved' is not a complete AutoencoderDC: it lacks" in text and "such as decoder." in text


@pytest.mark.parametrize(("name", "encoder"), MODELS)
def test_what_stock_nodes_do_to_text_models(host: Host, name: str, encoder: str) -> None:
    """Two prompts for two halves, inpainting, image to image, a LoRA, fp8 weights."""
    scene = Scene(name, encoder)
    graph, positive = scene.graph, scene.positive
    plain = graph.save(scene.sampled(scene.guided()))

    other = graph.add("CLIPTextEncode", clip=scene.clip, text="the golden savanna")
    half = {"width": 0.5, "height": 1.0, "y": 0.0, "strength": 1.0}
    areas = [
        graph.add("ConditioningSetAreaPercentage", conditioning=text, x=x, **half)
        for text, x in ((positive, 0.0), (other, 0.5))
    ]
    scene.positive = graph.add("ConditioningCombine", conditioning_1=areas[0], conditioning_2=areas[1])
    regions = graph.save(scene.sampled(scene.guided()))

    scene.positive = positive
    picture = scene.sampled(scene.guided(), seed=6)
    edge = 128 if name == PIXEL else 16
    mask = graph.add("SolidMask", value=0.0, width=edge, height=edge)
    left = graph.add("SolidMask", value=1.0, width=edge // 2, height=edge)
    mask = graph.add("MaskComposite", destination=mask, source=left, x=0, y=0, operation="add")
    masked = graph.add("SetLatentNoiseMask", samples=picture, mask=mask)
    before = graph.save(picture)
    inpainted = graph.save(scene.sampled(scene.guided(), latent=masked))
    redrawn = graph.save(scene.sampled(scene.guided(), latent=picture, denoise=0.5))

    lora = graph.add("LoraLoaderModelOnly", model=scene.model, lora_name="prx.safetensors", strength_model=1.0)
    schedule = graph.sparsity()
    tuned = graph.save(scene.sampled(graph.add("SparseGuidance", model=lora, sparsity=schedule)))
    small = graph.add("SparseModelLoader", model_name=name, weight_dtype="fp8_e4m3fn")
    fp8 = graph.save(scene.sampled(graph.add("SparseGuidance", model=small, sparsity=schedule)))

    found = sampled_latents(host, graph)
    side = found[plain].shape[-1] // 2
    assert torch.allclose(found[before][..., side:], found[inpainted][..., side:], atol=1e-5)
    different = [plain, regions, before, inpainted, redrawn, tuned, fp8]
    for i, a in enumerate(different):
        for b in different[i + 1 :]:
            assert not torch.allclose(found[a], found[b], atol=1e-3), (a, b)
    assert (found[plain] - found[fp8]).abs().mean() < 0.5 * found[plain].std()


@pytest.mark.parametrize(("name", "encoder"), MODELS)
def test_the_report_counts_the_text_that_runs(host: Host, name: str, encoder: str) -> None:
    """Padding is cut off in front of the network: a short prompt is 64 tokens, an unknown one the 256 of the model."""
    scene = Scene(name, encoder)
    values = {"model": scene.model, "sparsity": scene.graph.sparsity(), "latent": scene.latent, "steps": 4}
    short = scene.graph.add("SparseGuidanceReport", **values, positive=scene.positive, time_a_step=True)[0]
    unknown = scene.graph.add("SparseGuidanceReport", **values)[0]
    outputs = run(host, scene.graph).outputs
    texts = [outputs[node]["text"][0] for node in (short, unknown)]
    assert "64 text tokens are counted" in texts[0] and "256 text tokens are counted" in texts[1]
    counts = [[float(line.split()[-1]) for line in text.splitlines() if line.startswith("CFG ")] for text in texts]
    assert 0 < counts[0][0] < counts[1][0] and counts[0][1] > 0


def test_a_route_of_ones_own(host: Host) -> None:
    """The loader only assumes a route; Token Route replaces it."""
    scene = Scene()
    graph, schedule = scene.graph, scene.graph.sparsity()
    routes = [{"start_layer": 2, "end_layer": 4}, {"start_layer": 1, "end_layer": -1}]
    routed = [graph.add("TokenRoute", model=scene.model, route="custom", ratio=0.5, **route) for route in routes]
    models = [scene.model, *routed]
    nodes = [graph.save(scene.sampled(graph.add("SparseGuidance", model=m, sparsity=schedule))) for m in models]
    found = sampled_latents(host, graph)
    assert equal(found, nodes[0], nodes[1]) and not equal(found, nodes[0], nodes[2])
