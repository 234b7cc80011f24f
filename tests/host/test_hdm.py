"""HDM on a real host, from the file in which it is published, small and of random weights."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from graphs import Graph, equal, latents, run, sampled_latents, sentence, write_checkpoint
from host import Host
from published_hdm import CONFIG, write_hdm, write_text_encoder
from safetensors.torch import save_file

WHOLE, NOTE = "hdm-xut-340M-512px.safetensors", "hdm-xut-340M-1024px-note.safetensors"
ALONE, QWEN = "hdm-xut-340M-256px.safetensors", "model.safetensors"


@pytest.fixture(scope="session", autouse=True)
def files(host: Host) -> None:
    models = host.directory / "models"
    write_hdm(models / "checkpoints" / WHOLE, text=True)
    write_hdm(models / "checkpoints" / NOTE)
    write_hdm(models / "checkpoints" / ALONE, picture=False)
    write_hdm(models / "diffusion_models" / WHOLE, picture=False)
    write_text_encoder(models / "text_encoders" / QWEN)
    write_checkpoint(models / "diffusion_models" / "tiny.safetensors")
    write_loras(models / "loras")


def write_loras(folder: Path) -> None:
    """One change of one layer under kohya's name, and that of LyCORIS around the wrapper in which HDM trains; a LoKr
    under kohya's; and one for another model."""
    layer, generator = "backbone_dec_blocks_1_0_xattn_kv", torch.Generator().manual_seed(1)
    up, down = (torch.randn(*shape, generator=generator) for shape in ((2 * CONFIG.width, 4), (4, CONFIG.width)))
    parts = {"lora_up.weight": up, "lora_down.weight": down, "alpha": torch.tensor(4.0)}
    lokr = {"lokr_w1": torch.randn(2, 1, generator=generator), "lokr_w2": (up @ down)[: CONFIG.width]}
    files = {
        "kohya": {f"lora_unet_{layer}.{part}": value for part, value in parts.items()},
        "lokr": {f"lora_unet_{layer}.{part}": value for part, value in lokr.items()},
        "other": {f"lora_unet_blocks_0_attn_qkv.{part}": value for part, value in parts.items()},
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, state in files.items():
        save_file(state, folder / f"{name}.safetensors")
    torch.save({f"lycoris_model_{layer}.{part}": value for part, value in parts.items()}, folder / "lycoris.pt")


class Scene:
    """Checkpoint, prompt, negative prompt, and an empty latent of 128 x 96 pixels."""

    def __init__(self, name: str = WHOLE, encoder: str = "in the checkpoint", **size: int):
        graph = self.graph = Graph()
        self.model = graph.add("SparseCheckpointLoader", ckpt_name=name, text_encoder=encoder)
        self.clip, self.vae, self.about = ([self.model[0], place] for place in (1, 2, 3))
        texts = "1girl, nagato (azur lane), a longer prompt than the other", "worst quality"
        self.positive, self.negative = (graph.add("CLIPTextEncode", clip=self.clip, text=text) for text in texts)
        size = {"batch_size": 1, "width": 128, "height": 96, **size}
        self.latent = graph.add("EmptySparseLatent", model=self.model, **size)

    def guided(self, model: list | None = None, **values: Any) -> list:
        schedule = self.graph.sparsity(**{"preset": "HDM", **values})
        return self.graph.add("SparseGuidance", model=model or self.model, sparsity=schedule)

    def sampled(self, model: list | None = None, **values: Any) -> list:
        """24 steps are published; 4 show the same."""
        values = {"latent": self.latent, "cfg": 3.0, **values}
        return self.graph.sampled(model or self.model, self.positive, self.negative, **values)

    def picture(self, samples: list) -> str:
        decoded = self.graph.add("VAEDecode", samples=samples, vae=self.vae)
        return self.graph.add("SaveImage", images=decoded, filename_prefix="hdm")[0]

    def seen(self, x_shift: float = 0.0, y_shift: float = 0.0, zoom: float = 1.0) -> None:
        camera = self.graph.add(
            "SparseCameraCondition", positive=self.positive, negative=self.negative, x_shift=x_shift, y_shift=y_shift,
            zoom=zoom,
        )  # fmt: skip
        self.positive, self.negative = camera, [camera[0], 1]


def test_from_one_file_to_a_picture(host: Host) -> None:
    scene = Scene()
    nodes = [scene.picture(scene.sampled(model)) for model in (scene.model, scene.guided())]
    scene.graph.add("PreviewAny", source=scene.about)
    result = run(host, scene.graph)
    images = [result.pixels(node) for node in nodes]
    assert all(image.shape == (1, 96, 128, 3) and image.std() > 1 for image in images)
    assert (images[0] != images[1]).any()
    text = json.dumps(result.outputs)
    for part in ("xut", "layers 1 to 1 routed", "CFG + SG, gamma strong 0, gamma weak 0.5, omega 3", "24 steps"):
        assert part in text


def test_guidance(host: Host) -> None:
    """Nothing dropped is CFG bit for bit; the model's own settings are the preset; the text encoder may lie apart."""
    scene = Scene()
    graph = scene.graph
    cfg = graph.save(scene.sampled())
    dense = {"preset": "custom", "rule": "CFG + SG", "gamma_strong_start": 0.0, "gamma_weak_start": 0.0}
    ours, sparse = graph.save(scene.sampled(scene.guided(**dense))), graph.save(scene.sampled(scene.guided()))
    all_in_one = graph.sparse_sampled(
        scene.model, scene.positive, scene.latent, preset="from the model", negative=scene.negative
    )
    own = graph.save(all_in_one)
    found = sampled_latents(host, graph)
    assert equal(found, cfg, ours) and equal(found, sparse, own) and not equal(found, cfg, sparse)
    apart = Scene(NOTE, QWEN)
    node = apart.graph.save(apart.sampled(apart.guided()))
    assert torch.equal(sampled_latents(host, apart.graph)[node], found[sparse])


def test_the_network_alone(host: Host) -> None:
    scene = Scene()
    alone = scene.graph.model(WHOLE)
    nodes = [scene.graph.save(scene.sampled(scene.guided(model))) for model in (scene.model, alone)]
    assert equal(sampled_latents(host, scene.graph), *nodes)


def test_a_file_without_a_text_encoder(host: Host) -> None:
    scene = Scene(NOTE)
    scene.graph.save(scene.sampled())
    text = sentence(host, scene.graph)
    assert f"{NOTE} holds no text encoder: download model.safetensors of huggingface.co/Qwen/Qwen3-0.6B" in text


def test_a_file_without_a_vae(host: Host) -> None:
    scene = Scene(ALONE, QWEN)
    scene.picture(scene.sampled())
    assert f"{ALONE} holds no VAE: download" in sentence(host, scene.graph)


def test_a_file_that_is_none(host: Host) -> None:
    models = host.directory / "models"
    save_file({"blocks.0.weight": torch.zeros(1)}, models / "checkpoints" / "other.safetensors")
    save_file({"blocks.0.weight": torch.zeros(1)}, models / "text_encoders" / "other.safetensors")
    scene = Scene("other.safetensors")
    scene.graph.save(scene.sampled())
    assert "other.safetensors: not a checkpoint of a known architecture" in sentence(host, scene.graph)
    scene = Scene(NOTE, "other.safetensors")
    scene.graph.save(scene.sampled())
    assert "other.safetensors: it lacks 13 weights of a Qwen3, such as embed_tokens.weight." in sentence(
        host, scene.graph
    )


def test_a_camera(host: Host) -> None:
    """In the middle it changes nothing; elsewhere it does, and both prompts are seen by it."""
    scene = Scene()
    graph, prompts = scene.graph, (scene.positive, scene.negative)
    nodes = [graph.save(scene.sampled(scene.guided()))]
    for place in ({}, {"x_shift": 0.25}, {"y_shift": 0.25}, {"zoom": 1.33}):
        scene.positive, scene.negative = prompts
        scene.seen(**place)
        nodes.append(graph.save(scene.sampled(scene.guided())))
    found = sampled_latents(host, graph)
    assert equal(found, nodes[0], nodes[1])
    assert not any(equal(found, a, b) for i, a in enumerate(nodes[1:]) for b in nodes[i + 2 :])


def test_a_camera_for_a_model_without_one(host: Host) -> None:
    graph = Graph()
    model = graph.model("tiny.safetensors")
    camera = graph.add(
        "SparseCameraCondition", **dict(zip(("positive", "negative"), graph.labels(model), strict=True)), x_shift=0.1,
        y_shift=0.0, zoom=1.0,
    )  # fmt: skip
    latent = graph.add("EmptySparseLatent", model=model, batch_size=1, width=0, height=0)
    graph.save(graph.sampled(model, camera, [camera[0], 1], latent))
    assert "moves a camera, which this model does not have" in sentence(host, graph)


@pytest.mark.parametrize(("width", "height"), [(256, 256), (1536, 256), (320, 1088), (1536, 1024)])
def test_sizes(host: Host, width: int, height: int) -> None:
    scene = Scene(width=width, height=height)
    node = scene.graph.save(scene.sampled(scene.guided(), steps=1))
    assert sampled_latents(host, scene.graph)[node].shape == (1, 4, height // 8, width // 8)


def test_what_stock_nodes_do(host: Host) -> None:
    """A batch, LoRAs of kohya's names, Conditioning (Concat), two prompts for two halves, image to image."""
    scene = Scene(batch_size=2)
    graph, positive = scene.graph, scene.positive
    nodes = [graph.save(scene.sampled(scene.guided()))]
    for name in ("kohya", "lokr"):
        loader = {"lora_name": f"{name}.safetensors", "strength_model": 1.0, "strength_clip": 1.0}
        lora = graph.add("LoraLoader", model=scene.model, clip=scene.clip, **loader)
        nodes.append(graph.save(scene.sampled(scene.guided(lora))))
    other = graph.add("CLIPTextEncode", clip=scene.clip, text="masterpiece, newest")
    scene.positive = graph.add("ConditioningConcat", conditioning_to=positive, conditioning_from=other)
    nodes.append(graph.save(scene.sampled(scene.guided())))
    half = {"width": 0.5, "height": 1.0, "y": 0.0, "strength": 1.0}
    areas = [
        graph.add("ConditioningSetAreaPercentage", conditioning=text, x=x, **half)
        for text, x in ((positive, 0.0), (other, 0.5))
    ]
    scene.positive = graph.add("ConditioningCombine", conditioning_1=areas[0], conditioning_2=areas[1])
    nodes.append(graph.save(scene.sampled(scene.guided())))
    scene.positive = positive
    nodes.append(graph.save(scene.sampled(scene.guided(), latent=scene.sampled(seed=6), denoise=0.5)))
    found = sampled_latents(host, graph)
    for i, a in enumerate(nodes):
        assert found[a].shape == (2, 4, 12, 16)
        assert not torch.equal(found[a][0], found[a][1])
        for b in nodes[i + 1 :]:
            assert not torch.allclose(found[a], found[b], atol=1e-3), (i, a, b)


def test_names_of_other_trainers(host: Host) -> None:
    scene = Scene()
    graph = scene.graph
    stock = graph.add("LoraLoaderModelOnly", model=scene.model, lora_name="kohya.safetensors", strength_model=0.7)
    ours = [
        graph.add("SparseLoRALoader", model=scene.model, lora_name=name, strength_model=0.7)
        for name in ("kohya.safetensors", "lycoris.pt")
    ]
    nodes = [graph.save(scene.sampled(scene.guided(model))) for model in (stock, *ours, scene.model)]
    found = sampled_latents(host, graph)
    assert equal(found, *nodes[:2]) and equal(found, *nodes[1:3]) and not equal(found, *nodes[2:])
    scene = Scene()
    wrong = scene.graph.add("SparseLoRALoader", model=scene.model, lora_name="other.safetensors", strength_model=1.0)
    scene.graph.save(scene.sampled(wrong))
    assert "other.safetensors holds nothing for the layers of this model" in sentence(host, scene.graph)


def test_a_lora_of_strength_0_is_not_read(host: Host) -> None:
    scene = Scene()
    off = scene.graph.add("SparseLoRALoader", model=scene.model, lora_name="other.safetensors", strength_model=0.0)
    nodes = [scene.graph.save(scene.sampled(scene.guided(model))) for model in (off, scene.model)]
    assert equal(sampled_latents(host, scene.graph), *nodes)


def test_the_report_counts_the_prompt(host: Host) -> None:
    scene = Scene()
    values = {"model": scene.model, "sparsity": scene.graph.sparsity(preset="HDM"), "latent": scene.latent, "steps": 4}
    known = scene.graph.add("SparseGuidanceReport", **values, positive=scene.positive)[0]
    unknown = scene.graph.add("SparseGuidanceReport", **values)[0]
    outputs = run(host, scene.graph).outputs
    assert "256 text tokens are counted" in outputs[unknown]["text"][0]
    assert "256 text tokens" not in outputs[known]["text"][0] and "text tokens are counted" in outputs[known]["text"][0]


def test_a_last_layer_is_not_chosen(host: Host) -> None:
    """Not even the last one, which the host would hand on without its norm; the node that reads the prompt says so."""
    scene = Scene()
    plain = scene.graph.save(scene.sampled(scene.guided()))
    cut = scene.graph.add("CLIPSetLastLayer", clip=scene.clip, stop_at_clip_layer=-1)
    scene.positive = scene.graph.add(
        "CLIPTextEncode", clip=cut, text=scene.graph.nodes[scene.positive[0]]["inputs"]["text"]
    )
    last = scene.graph.save(scene.sampled(scene.guided()))
    result = run(host, scene.graph)
    assert equal(latents(host, result), plain, last)
    assert any(b"CLIP Set Last Layer has no effect" in message for message in result.previews)
