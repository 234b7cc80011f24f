"""Token Route and Sparse Guidance Report as nodes of a real host: on a small Wan, and on this pack's own models."""

import json
import re
from dataclasses import replace
from typing import Any

import pytest
import torch
from graphs import SPEC, Graph, Scene, equal, latents, run, sampled_latents, sentence, write_checkpoint, write_models
from host import Host
from hosted_files import write_small
from safetensors.torch import save_file

WAN = "wan2.1_t2v_1.3B_fp16.safetensors"
TREAD = {"routes": [{"selection_ratio": 0.5, "start_layer_idx": 1, "end_layer_idx": -2}]}
FIVE = {
    "routes": [
        {"start_layer_idx": layer, "end_layer_idx": layer, "selection_ratio": ratio, "gamma_factor": ratio / 0.25}
        for layer, ratio in enumerate((0.1, 0.25, 0.4, 0.25, 0.1))
    ]
}
"""A route for every block, each with a ratio of its own; the highest leaves no room for a rate above 0.625."""


@pytest.fixture(scope="session", autouse=True)
def models(host: Host) -> None:
    """A random Wan of five blocks as a file, and 4096 labels that pass for its text."""
    write_models(host)
    folder = host.directory / "models" / "diffusion_models"
    labels = replace(SPEC, config=replace(SPEC.config, num_classes=4096), labels=())
    write_checkpoint(folder / "labels.safetensors", labels)
    write_small(host.checkout, host.directory / "models", f"diffusion_models/{WAN}")


class Video:
    """Loader, conditions and an empty latent of 3 frames."""

    def __init__(self) -> None:
        self.graph = Graph()
        self.model = self.graph.add("UNETLoader", unet_name=WAN, weight_dtype="default")
        label = self.graph.model("labels.safetensors")
        self.positive, _ = self.graph.labels(label, "5, 7")
        self.negative, _ = self.graph.labels(label, "11")
        self.latent = self.graph.add("EmptyHunyuanLatentVideo", width=80, height=48, length=9, batch_size=2)

    def route(self, model: list | None = None, **values: Any) -> list:
        rest = {"route": "custom", "start_layer": 1, "end_layer": -2, "ratio": 0.5, "json": "", "latent": self.latent}
        return self.graph.add("TokenRoute", model=model or self.model, **{**rest, **values})

    def guided(self, model: list, sparsity: list) -> list:
        return self.graph.add("SparseGuidance", model=model, sparsity=sparsity)

    def sample(self, model: list, **values: Any) -> str:
        return self.graph.save(self.graph.sampled(model, self.positive, self.negative, self.latent, **values))


def test_wan_is_guided_by_its_own_tokens(host: Host) -> None:
    """gamma 0 is stock CFG bit for bit, SG is something else, and the stock model stays what it is."""
    video = Video()
    graph, routed = video.graph, video.route()
    stock = video.sample(video.model)
    dense = video.sample(video.guided(routed, graph.dense(omega_start=3.0)))
    unguided = video.sample(routed)
    sparse = video.sample(video.guided(routed, graph.sparsity()), cfg=2.0)
    pasted = video.route(route="family default", json=json.dumps({"tread_config": TREAD, "seed": 3}))
    same = video.sample(video.guided(pasted, graph.sparsity()), cfg=2.0)
    guider = graph.add("SparseGuider", model=routed, positive=video.positive, sparsity=graph.sparsity())
    custom = graph.save(graph.advanced(guider, video.latent, video.model))
    result = run(host, graph)
    found = sampled_latents(host, graph)
    assert equal(found, stock, dense, unguided)
    assert equal(found, sparse, same, custom)
    assert not equal(found, stock, sparse)
    (about,) = result.outputs[routed[0]]["text"]
    assert "Wan, 5 blocks." in about
    assert "blocks 1 to 3 (blocks 1 to blocks 3)" in about
    assert "45 image tokens" in about
    again = Video()
    after = again.sample(again.model, denoise=0.99999)  # the same sampling, not the same cache entry
    assert (sampled_latents(host, again.graph)[after] == found[stock]).all()


def test_a_route_over_this_packs_own_model(host: Host) -> None:
    """TokenRoute replaces what the file says; the route of the file, set again, changes nothing."""
    scene = Scene()
    graph = scene.graph
    plan = graph.sparsity()
    values = {"ratio": 0.5, "json": ""}
    again = graph.add("TokenRoute", model=scene.model, route="custom", start_layer=1, end_layer=2, **values)
    family = graph.add("TokenRoute", model=scene.model, route="family default", start_layer=0, end_layer=0, **values)
    other = graph.add("TokenRoute", model=scene.model, route="custom", start_layer=2, end_layer=-1, **values)
    own, same, default, elsewhere = (scene.stock(scene.guided(plan, m)) for m in (scene.model, again, family, other))
    found = sampled_latents(host, graph)
    assert equal(found, own, same, default)
    assert not equal(found, own, elsewhere)


@pytest.mark.parametrize("own", [True, False], ids=["own model", "Wan"])
def test_the_report(host: Host, own: bool) -> None:
    video, scene = Video(), Scene()
    if own:
        graph, model, latent, positive = scene.graph, scene.model, scene.latent, scene.positive
    else:
        graph, model, latent, positive = video.graph, video.route(), video.latent, video.positive
    plan = graph.sparsity(gamma_weak_end=0.95, gamma_weak_shape="linear")
    values = {"model": model, "sparsity": plan, "latent": latent, "steps": 6}
    timed = graph.add("SparseGuidanceReport", **values, positive=positive, time_a_step=True)
    counted = graph.add("SparseGuidanceReport", **values)
    for node in (timed, counted):
        graph.add("PreviewImage", images=[node[0], 1])
    result = run(host, graph)
    for node in (timed, counted):
        (text,) = result.outputs[node[0]]["text"]
        assert result.images[node[0]][0].size == (640, 360)
        lines = {line.split("  ")[0]: float(line.split()[-1]) for line in text.splitlines()[1:4]}
        assert lines["CFG"] == pytest.approx(2 * lines["no guidance"], rel=0.02, abs=0.02)
        assert lines["SG"] <= lines["CFG"]
        assert ("Seconds of one step" in text) == (node is timed)
        assert (" counted, and what runs once" in text) == (not own)  # a model of labels has none
        assert len([line for line in text.splitlines() if line[:1].isdigit()]) >= 3


def test_a_report_says_what_it_cannot_time(host: Host) -> None:
    """The costs stand whatever is missing, and what can be timed is: CFG without the weak model, nothing without a
    conditioning, all with both."""
    scene = Scene()
    weak = scene.graph.model("tiny-early.safetensors")
    values = {"model": scene.model, "latent": scene.latent, "steps": 4, "time_a_step": True}

    def report(rule: str, **more: Any) -> str:
        return scene.graph.add("SparseGuidanceReport", **values, sparsity=scene.graph.sparsity(rule=rule), **more)[0]

    blind, alone = report("SG"), report("AG", positive=scene.positive)
    pairs = {rule: report(rule, positive=scene.positive, weak_model=weak) for rule in ("AG", "AG + SG")}
    outputs = run(host, scene.graph).outputs
    texts = {node: outputs[node]["text"][0] for node in (blind, alone, *pairs.values())}
    assert all("GMACs per step and picture" in text for text in texts.values())
    assert texts[blind].splitlines()[-1].endswith("Connect positive.") and "Seconds" not in texts[blind]
    *_, cfg, last = texts[alone].splitlines()
    assert re.fullmatch(r"CFG +\d+\.\d{3}", cfg)
    assert re.fullmatch(r"AG +was not timed: .* Connect weak_model\.", last)
    for rule, node in pairs.items():
        assert re.fullmatch(rf"{re.escape(rule)} +\d+\.\d{{3}}", texts[node].splitlines()[-1])


def test_a_loras_record(host: Host) -> None:
    """A LoRA's file says where it was trained sparsely; one that does not changes nothing, and custom comes first."""
    video, folder = Video(), host.directory / "models" / "loras"
    folder.mkdir(exist_ok=True)
    weights = {"diffusion_model.blocks.1.ffn.0.diff_b": torch.zeros(256)}
    save_file(weights, folder / "routed.safetensors", metadata={"tread_config": json.dumps(TREAD)})
    save_file(weights, folder / "plain.safetensors")
    chosen = [("routed", "short route"), ("plain", "short route"), ("routed", "custom")]
    nodes = [video.route(route=route, start_layer=0, lora=f"{name}.safetensors") for name, route in chosen]
    for node in nodes:
        video.graph.add("PreviewAny", source=[node[0], 1])
    result = run(host, video.graph)
    texts = [result.outputs[node[0]]["text"][0] for node in nodes]
    assert [text.split("blocks ")[1].split(" (")[0] for text in texts] == ["1 to 3", "1 to 2", "0 to 3"]
    assert 'routed.safetensors records {"routes": [{"start_layer_idx": 1,' in texts[0]
    assert "plain.safetensors records no route." in texts[1]


@pytest.mark.parametrize("own", [True, False], ids=["own model", "Wan"])
def test_routes_by_name(host: Host, own: bool) -> None:
    """Five blocks of Wan, and a checkpoint that records layers 1 to 2: it keeps them under every name."""
    scene = Scene() if own else Video()
    values = {"start_layer": 0, "end_layer": 0, "ratio": 0.5, "json": "", "latent": scene.latent}
    names = ("family default", "trainer's route", "short route")
    nodes = [scene.graph.add("TokenRoute", model=scene.model, route=name, **values) for name in names]
    for node in nodes:
        scene.graph.add("PreviewAny", source=[node[0], 1])
    result = run(host, scene.graph)
    shown = [result.outputs[node[0]]["text"][0] for node in nodes]
    assert ["The model came with this route." in text for text in shown] == [own] * 3
    texts = [text.splitlines()[1] for text in shown]
    expected = ["1 to 2"] * 3 if own else ["2 to 3", "2 to 3", "1 to 2"]
    assert [text.split("blocks ")[1].split(" (")[0] for text in texts] == expected
    assert ["not trained so" in text for text in texts] == [False, False, not own]


def test_a_mask_at_every_node_that_takes_one(host: Host) -> None:
    """The patch, the guider, the sampler and the report, over a third of Wan's picture; nothing under it changes
    without it, and a mask of nothing changes nothing."""
    video = Video()
    graph, routed = video.graph, video.route()
    plan = graph.sparsity(gamma_weak_start=0.75)
    full = graph.add("SolidMask", value=1.0, width=16, height=48)
    third = graph.add("MaskComposite", destination=graph.add("SolidMask", value=0.0, width=48, height=48), source=full,
                      x=0, y=0, operation="add")  # fmt: skip
    empty = graph.add("SolidMask", value=0.0, width=8, height=8)
    plain, masked, nothing = (
        video.sample(graph.add("SparseGuidance", model=routed, sparsity=plan, **mask), cfg=2.0)
        for mask in ({}, {"mask": third}, {"mask": empty})
    )
    guider = graph.add("SparseGuider", model=routed, positive=video.positive, sparsity=plan, mask=third)
    custom = graph.save(graph.advanced(guider, video.latent, video.model))
    one_box = graph.save(graph.sparse_sampled(routed, video.positive, video.latent, sparsity=plan, mask=third))
    values = {"model": routed, "sparsity": plan, "latent": video.latent, "steps": 3}
    report = graph.add("SparseGuidanceReport", **values, mask=third)
    result = run(host, graph)
    found = latents(host, result)
    assert equal(found, masked, custom, one_box) and equal(found, plain, nothing)
    assert not equal(found, plain, masked)
    (text,) = result.outputs[report[0]]["text"]
    assert "18 of 45 tokens are under the mask" in text  # 5 x 3 patches of 16 pixels in each of 3 frames
    assert "0.750       18" in text and "0.250       34" in text


def no_route() -> Graph:
    video = Video()
    video.sample(video.guided(video.model, video.graph.sparsity()))
    return video.graph


def routed(**values: Any) -> Graph:
    video = Video()
    video.sample(video.guided(video.route(**values), video.graph.sparsity()))
    return video.graph


def hidden() -> Graph:
    video = Video()
    mask = video.graph.add("SolidMask", value=1.0, width=64, height=64)
    video.sample(
        video.graph.add("SparseGuidance", model=video.route(), sparsity=video.graph.sparsity(), mask=mask), cfg=2.0
    )
    return video.graph


@pytest.mark.parametrize(
    ("graph", "words"),
    [
        (lambda: no_route(), "put Token Route in front of this node"),
        (lambda: routed(end_layer=5), "route 1 -> 5 leaves the network: it has layers 0 to 4"),
        (lambda: routed(start_layer=3, end_layer=1), "reversed"),
        (lambda: routed(json='{"steps": 20}'), "not a route"),
        (lambda: routed(json="2, -2"), "not a route"),
        (lambda: routed(json='{"routes": []}'), "no route in this"),
        (lambda: routed(json=json.dumps(FIVE)), "multiplies gamma_weak 0.75 by its gamma_factor 1.6, which is 1.2"),
        (lambda: hidden(), "The mask keeps 45 of 45 tokens"),
    ],
    ids=[
        "no route",
        "past the end",
        "reversed",
        "another JSON",
        "no JSON",
        "empty JSON",
        "a factor too large",
        "a mask of everything",
    ],
)
def test_one_sentence(host: Host, graph: Any, words: str) -> None:
    assert words in sentence(host, graph())
