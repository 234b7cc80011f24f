"""What text models say of graphs that do not fit them."""

import pytest
from graphs import Graph, sentence
from host import Host
from text_scene import LATENT, MODELS, Scene

pytestmark = pytest.mark.usefixtures("text_files")


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
