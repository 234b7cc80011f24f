"""Every published family in its authors' own file format, small and random: loaded, conditioned, sampled, decoded."""

import pytest
import torch
from graphs import Graph, run, sampled_latents
from host import Host
from published import FILES, VAE, write_files
from safetensors.torch import save_file

EXPECTED = {
    "DiT-XL-2-256x256.pt": ("no token route; epsilon", "CFG, gamma strong 0, gamma weak 0, omega 4 "),
    "SiT-XL-2-256.pt": ("no token route; flow of velocity", "250 steps"),
    "tread.pt": ("no token route; flow of velocity", "1000 labels"),
    "imagenet256-ckpt-best_with_guidance.pt": ("masked at ratio 0.5; edm", "omega 1.5 at the start, 40 steps"),
    "sprint_XL_imagenet256.safetensors": (
        "masked at ratio 0.75; flow",
        "CFG + SG, gamma strong 0, gamma weak 1, omega 3",
    ),
}


@pytest.fixture(scope="session", autouse=True)
def files(host: Host) -> None:
    write_files(host)


def scene(name: str, labels: str = "golden retriever") -> tuple[Graph, list, list, list]:
    graph = Graph()
    model = graph.model(name)
    positive, _ = graph.labels(model, labels)
    return graph, model, positive, graph.add("EmptySparseLatent", model=model, batch_size=1, width=0, height=0)


@pytest.mark.parametrize("name", FILES)
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


@pytest.mark.parametrize("name", ["imagenet256-ckpt-best_with_guidance.pt", "sprint_XL_imagenet256.safetensors"])
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
