"""Every published family in its authors' own file format, small and random: loaded, conditioned, sampled, decoded."""

import pytest
import torch
from graphs import Graph, equal, latents, run, sampled_latents
from host import Host
from published import CLIP, SDXL_VAE, VAE, write_files, write_invae
from safetensors.torch import save_file

from sparse_model.__main__ import main

EXPECTED = {
    "DiT-XL-2-256x256.pt": ("no token route; epsilon", "CFG, gamma strong 0, gamma weak 0, omega 4 "),
    "SiT-XL-2-256.pt": ("no token route; flow of velocity", "250 steps"),
    "tread.pt": ("no token route; flow of velocity", "1000 labels"),
    "imagenet256-ckpt-best_with_guidance.pt": ("masked at ratio 0.5; edm", "omega 1.5 at the start, 40 steps"),
    "mdt_xl2_v2_ckpt.pt": (
        "masked at ratio 0.3; epsilon",
        "CFG, gamma strong 0, gamma weak 0, omega 4 at the start, 250 steps",
    ),
    "sprint_XL_imagenet256.safetensors": (
        "masked at ratio 0.75; flow",
        "CFG + SG, gamma strong 0, gamma weak 1, omega 3",
    ),
}


@pytest.fixture(scope="session", autouse=True)
def files(host: Host) -> None:
    write_files(host)


MASKED = [name for name, words in EXPECTED.items() if "masked" in words[0]] + [
    "dit_4_channel_37M_real_and_synthetic_data.pt"
]


def scene(name: str, labels: str = "golden retriever") -> tuple[Graph, list, list, list]:
    graph = Graph()
    model = graph.model(name)
    positive, _ = graph.labels(model, labels)
    return graph, model, positive, graph.add("EmptySparseLatent", model=model, batch_size=1, width=0, height=0)


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPECTED)
def test_from_the_published_file_to_a_picture(host: Host, name: str) -> None:
    graph, model, positive, latent = scene(name)
    vae = graph.add("VAELoader", vae_name=VAE)
    recommended = {} if name == "tread.pt" else {"preset": "from the model"}
    plain = graph.sparsity(rule="CFG", gamma_strong_start=0.0, gamma_weak_start=0.0)
    values = recommended or {"sparsity": plain}
    samples = graph.sparse_sampled(model, positive, latent, **values)
    saved = graph.save(samples)
    image = graph.add("VAEDecode", samples=samples, vae=vae)
    shown = graph.add("SaveImage", images=image, filename_prefix="family")
    result = run(host, graph)
    about = result.outputs[model[0]]["text"][0]
    for words in EXPECTED[name]:
        assert words in about
    assert result.outputs[positive[0]]["text"] == ["golden retriever (1)"]
    pixels = result.pixels(shown[0])
    assert pixels.shape == (1, 256, 256, 3)
    assert pixels.std() > 1
    assert saved in result.outputs


@pytest.mark.parametrize(
    "name", ["imagenet256-ckpt-best_with_guidance.pt", "mdt_xl2_v2_ckpt.pt", "sprint_XL_imagenet256.safetensors"]
)
def test_sparse_guidance(host: Host, name: str) -> None:
    """A number names the same class as its name; SG drops tokens; a weak branch without any is another one."""
    latents = []
    for labels in ("golden retriever", "207"):
        graph, model, positive, latent = scene(name, labels)
        dense = graph.save(graph.sparse_sampled(model, positive, latent, sparsity=graph.dense()))
        sparse = graph.save(graph.sparse_sampled(model, positive, latent, sparsity=graph.sparsity()))
        path_drop = graph.save(graph.sparse_sampled(model, positive, latent, preset="PDG"))
        found = sampled_latents(host, graph)
        latents.append([found[node] for node in (dense, sparse, path_drop)])
    assert all(torch.equal(a, b) for a, b in zip(*latents, strict=True))
    dense, sparse, path_drop = latents[0]
    assert not torch.allclose(dense, sparse, atol=1e-3)
    assert not torch.allclose(dense, path_drop, atol=1e-3)
    assert not torch.allclose(sparse, path_drop, atol=1e-3)


def test_text_to_image_of_microdit(host: Host) -> None:
    """An open negative is the published null condition, embeddings of zeros; a mask drops tokens, and CFG + SG runs."""
    graph = Graph()
    model = graph.model("dit_4_channel_37M_real_and_synthetic_data.pt")
    clip = graph.add("SparseTextEncoder", folder=CLIP)
    positive, other = (graph.add("CLIPTextEncode", clip=clip, text=text) for text in ("a lion", "the golden savanna"))
    zeros = graph.add("ConditioningZeroOut", conditioning=positive)
    latent = graph.add("EmptySparseLatent", model=model, batch_size=1, width=128, height=128)
    recommended = {"preset": "from the model", "scheduler": "karras"}
    samples = graph.sparse_sampled(model, positive, latent, **recommended)
    open_negative, another, zero_negative, sparse = (
        graph.save(node)
        for node in (
            samples,
            graph.sparse_sampled(model, other, latent, **recommended),
            graph.sparse_sampled(model, positive, latent, negative=zeros, **recommended),
            graph.sparse_sampled(model, positive, latent, preset="GenEval", scheduler="karras"),
        )
    )
    vae = graph.add("VAELoader", vae_name=SDXL_VAE)
    shown = graph.add("SaveImage", images=graph.add("VAEDecode", samples=samples, vae=vae), filename_prefix="family")
    result = run(host, graph)
    found = latents(host, result)
    assert "masked at ratio 0.75; edm" in result.outputs[model[0]]["text"][0]
    assert "CFG, gamma strong 0, gamma weak 0, omega 5 at the start, 30 steps" in result.outputs[model[0]]["text"][0]
    assert result.pixels(shown[0]).shape == (1, 128, 128, 3)
    assert equal(found, open_negative, zero_negative)
    assert not any(torch.allclose(found[open_negative], found[node], atol=1e-3) for node in (another, sparse))


def test_srdit_and_its_autoencoder(host: Host) -> None:
    """From the published file to a picture, which is that of diffusers' own autoencoder of the latent's 32 channels."""
    theirs = write_invae(host.directory / "models" / "vae" / "e2e-invae-hf")
    graph, model, positive, latent = scene("0400000.pt")
    samples = graph.sparse_sampled(model, positive, latent, preset="from the model")
    saved, sparse = (graph.save(node) for node in (samples, graph.sparse_sampled(model, positive, latent)))
    vae = graph.add("SparseVAELoader", folder="e2e-invae-hf")
    decoded = graph.add("VAEDecode", samples=samples, vae=vae)
    shown = graph.add("SaveImage", images=decoded, filename_prefix="family")[0]
    encoded = graph.save(graph.add("VAEEncode", pixels=decoded, vae=vae))
    result = run(host, graph)
    found, about = latents(host, result), result.outputs[model[0]]["text"][0]
    assert "masked at ratio 0.75; flow" in about and "CFG + SG, gamma strong 0, gamma weak 1, omega 2.5" in about
    assert found[saved].shape == (1, 35, 16, 16)
    assert not torch.allclose(found[saved], found[sparse], atol=1e-3)
    with torch.no_grad():
        picture = theirs.decode(found[saved][:, :32]).sample
        mean = theirs.encode(picture.clamp(-1, 1)).latent_dist.mean
    expected = ((picture + 1) / 2).clamp(0, 1)[0].permute(1, 2, 0)
    pixels = torch.from_numpy(result.pixels(shown)[0]) / 255
    assert expected.std() > 0.01 and (pixels - expected).abs().max() < 1.5 / 255
    assert found[encoded].shape == mean.shape and torch.isfinite(mean).all()


@pytest.mark.parametrize("of", ["a picture", "an area"])
def test_what_a_class_token_cannot_have(host: Host, of: str) -> None:
    graph, model, positive, latent = scene("0400000.pt")
    if of == "an area":
        positive = graph.add("ConditioningSetArea", conditioning=positive, width=128, height=128, x=0, y=0, strength=1)
    else:
        pixels = graph.add("EmptyImage", width=128, height=128, batch_size=1, color=8355711)
        latent = graph.add("VAEEncode", pixels=pixels, vae=graph.add("VAELoader", vae_name=VAE))
    graph.save(graph.sparse_sampled(model, positive, latent))
    words = {"a picture": "3 of them hold its class token", "an area": "class token is that of a whole picture"}
    assert words[of] in host.run(graph.nodes).error["exception_message"]


@pytest.mark.parametrize("name", MASKED)
def test_token_route_in_place_of_a_mask(host: Host, name: str) -> None:
    """The same as a file that records the route; and not what the mask does."""
    folder = host.directory / "models" / "diffusion_models"
    assert main(["convert", str(folder / name), str(folder / "routed.safetensors"), "--route", "0", "-1"]) == 0
    graph = Graph()
    masked, recorded = graph.model(name), graph.model("routed.safetensors")
    values = {"route": "custom", "start_layer": 0, "end_layer": -1, "ratio": 0.5}
    routed = graph.add("TokenRoute", model=masked, **values)
    if "dit_4" in name:
        clip = graph.add("SparseTextEncoder", folder=CLIP)
        positive = graph.add("CLIPTextEncode", clip=clip, text="a lion")
    else:
        positive, _ = graph.labels(masked, "207")
    latent = graph.add("EmptySparseLatent", model=masked, batch_size=1, width=128, height=128)
    saved = [graph.save(graph.sparse_sampled(model, positive, latent)) for model in (routed, recorded, masked)]
    result = run(host, graph)
    found = latents(host, result)
    assert "This replaces the mask" in result.outputs[routed[0]]["text"][0]
    torch.testing.assert_close(found[saved[0]], found[saved[1]], rtol=1e-5, atol=1e-4)
    assert not torch.allclose(found[saved[0]], found[saved[2]], atol=1e-3)


@pytest.mark.parametrize(
    "name", ["sprint_XL_imagenet256.safetensors", "0400000.pt", "dit_4_channel_37M_real_and_synthetic_data.pt"]
)
def test_fp8_storage(host: Host, name: str) -> None:
    """Norms, experts and tokens that are no layers of the host's are stored and cast like the rest."""
    graph = Graph()
    plain, small = (
        graph.add("SparseModelLoader", model_name=name, weight_dtype=dtype) for dtype in ("default", "fp8_e4m3fn")
    )
    if "dit_4" not in name:
        positive, _ = graph.labels(plain, "207")
    else:
        clip = graph.add("SparseTextEncoder", folder=CLIP)
        positive = graph.add("CLIPTextEncode", clip=clip, text="a lion")
    side = 256 if name == "0400000.pt" else 128
    latent = graph.add("EmptySparseLatent", model=plain, batch_size=1, width=side, height=side)
    saved = [graph.save(graph.sparse_sampled(model, positive, latent, preset="PDG")) for model in (plain, small)]
    found = sampled_latents(host, graph)
    difference = (found[saved[0]] - found[saved[1]]).abs().mean() / found[saved[0]].abs().mean()
    assert 0 < difference < 0.5


@pytest.mark.parametrize(
    "labels, words", [("1000", "class id 1000 is past the end"), ("golden retreiver", "did you mean")]
)
def test_a_label_that_is_none(host: Host, labels: str, words: str) -> None:
    graph, _, positive, _ = scene("sprint_XL_imagenet256.safetensors", labels)
    graph.add("PreviewAny", source=positive)
    result = host.run(graph.nodes)
    assert words in result.error["exception_message"]


@pytest.mark.parametrize(
    "key, words",
    [("a.lora_up.weight", "is a LoRA"), ("decoder.conv_in.weight", "is a VAE"), ("x", "known architecture")],
)
def test_a_file_that_is_no_model(host: Host, key: str, words: str) -> None:
    name = f"wrong-{key}.safetensors"
    save_file({key: torch.zeros(4, 4)}, host.directory / "models" / "diffusion_models" / name)
    graph = Graph()
    graph.add("PreviewAny", source=graph.model(name))
    result = host.run(graph.nodes)
    assert words in result.error["exception_message"]
