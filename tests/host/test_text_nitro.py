"""Text-conditional models on a real host, from the files in which they are published, with random weights: Nitro-T."""

import pytest
import torch
from graphs import equal, latents, run
from host import Host
from published_text import NITROS, write_nitro
from text_scene import Scene, picture


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
