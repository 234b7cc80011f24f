"""Text-conditional models on a real host, from the files in which they are published, with random weights: PRX with
the VAE of Flux, and PRXPixel."""

import json

import pytest
import torch
from graphs import Graph, equal, run, sampled_latents
from host import Host
from text_scene import LATENT, MODELS, PIXEL, Scene, picture

pytestmark = pytest.mark.usefixtures("text_files")


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
