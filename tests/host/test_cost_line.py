"""What a run cost is told to the editor once, for the node that sampled, and is what the report says before it."""

import re
from dataclasses import replace

import pytest
from graphs import SPEC, Scene, write_checkpoint, write_models
from host import Host
from hosts import version_key

from sparse_model.cost import step_cost
from sparse_model.method.schedule import constant

EVENT = "sparse_guidance.cost"


@pytest.fixture(scope="module", autouse=True)
def models(host: Host) -> None:
    write_models(host)
    flat = replace(SPEC, config=replace(SPEC.config, width=SPEC.config.width // 2))
    write_checkpoint(host.directory / "models" / "diffusion_models" / "narrow.safetensors", flat)


def test_the_cost_of_a_run(host: Host) -> None:
    scene = Scene()
    plan = scene.graph.sparsity(start_percent=0.25)
    report = scene.graph.add(
        "SparseGuidanceReport", model=scene.model, sparsity=plan, latent=scene.latent, steps=4, positive=scene.positive
    )[0]
    ours = scene.graph.sparse_sampled(scene.model, scene.positive, scene.latent, sparsity=plan)
    stock = scene.graph.sampled(scene.guided(plan), scene.positive, scene.null, scene.latent)
    for samples in (ours, stock):
        scene.graph.save(samples)
    result = host.run(scene.graph.nodes)
    assert result.error is None
    told = {event["data"]["node"]: event["data"]["text"] for event in result.named(EVENT)}
    assert set(told) == {ours[0], stock[0]} and len(result.named(EVENT)) == 2
    assert "steps are taken to be even over progress" in result.outputs[report]["text"][0]
    assert {event["data"]["prompt_id"] for event in result.named(EVENT)} == {result.prompt_id}
    share = re.search(r"(\d+%) of CFG", result.outputs[report]["text"][0])[1]
    cost = step_cost(SPEC, replace(constant(0.25, 0.75, 2.0), start=0.25), 4, attention=True)
    assert share == f"{cost.total / cost.cfg:.0%}"
    for text in told.values():
        assert re.fullmatch(rf"{share} of the work of CFG, [\d.]+ s per step, 4 steps", text)


def test_a_single_step_is_one(host: Host) -> None:
    scene = Scene()
    scene.graph.save(scene.graph.sparse_sampled(scene.model, scene.positive, scene.latent, steps=1, seed=3))
    (event,) = host.run(scene.graph.nodes).named(EVENT)
    assert event["data"]["text"].endswith(" s per step, 1 step")


def test_what_only_measures_tells_no_cost(host: Host) -> None:
    """A timed step and a match: their own texts say what they took."""
    scene = Scene()
    given = {"model": scene.model, "positive": scene.positive}
    timed = {"latent": scene.latent, "sparsity": scene.graph.sparsity(), "steps": 4, "time_a_step": True}
    scene.graph.add("SparseGuidanceReport", **given, **timed)
    looked = {"latent_image": scene.latent, "cfg": 3.0, "preset": "from the model", "seed": 0, "steps": 2}
    match = scene.graph.add("SparseGuidanceMatch", **given, **looked)
    samples = scene.graph.sparse_sampled(scene.model, scene.positive, scene.latent, sparsity=match)
    scene.graph.save(samples)
    result = host.run(scene.graph.nodes)
    assert result.error is None
    assert [event["data"]["node"] for event in result.named(EVENT)] == [samples[0]]


def test_a_smaller_weak_model_costs_less(host: Host) -> None:
    shares = []
    for name in ("tiny-early.safetensors", "narrow.safetensors"):
        scene = Scene()
        plan, weak = scene.graph.sparsity(rule="AG"), scene.graph.model(name)
        guided = {"sparsity": plan, "weak_model": weak}
        scene.graph.save(scene.graph.sparse_sampled(scene.model, scene.positive, scene.latent, **guided))
        report = scene.graph.add("SparseGuidanceReport", model=scene.model, latent=scene.latent, steps=4, **guided)[0]
        result = host.run(scene.graph.nodes)
        assert result.error is None
        (event,) = result.named(EVENT)
        shares.append(int(re.match(r"\d+", event["data"]["text"])[0]))
        assert f"{shares[-1]}% of CFG" in result.outputs[report]["text"][0]
    same, smaller = shares
    assert same == 100 and 50 < smaller < 80


def test_a_run_without_guidance_tells_nothing(host: Host) -> None:
    scene = Scene()
    plain = scene.graph.sampled(scene.model, scene.positive, scene.null, scene.latent)
    unscaled = scene.graph.sampled(
        scene.guided(scene.graph.sparsity()), scene.positive, scene.null, scene.latent, cfg=1
    )
    for samples in (plain, unscaled):
        scene.graph.save(samples)
    result = host.run(scene.graph.nodes)
    assert result.error is None and result.named(EVENT) == []


def test_what_easycache_leaves_out_costs_nothing(host: Host) -> None:
    """With a threshold that nothing reaches, evaluations are left out from where rates are known."""
    if version_key(host.version) < (0, 4):
        pytest.skip("EasyCache of this ComfyUI cannot take two predictions in a batch")
    scene, texts = Scene(), []
    settings = {"reuse_threshold": 3.0, "start_percent": 0.0, "end_percent": 1.0, "verbose": False}
    cached = scene.graph.add("EasyCache", model=scene.model, **settings)
    for model in (scene.model, cached):
        samples = scene.graph.sampled(
            scene.guided(scene.graph.sparsity(), model), scene.positive, scene.null, scene.latent, steps=8
        )
        scene.graph.save(samples)
        texts.append(samples[0])
    result = host.run(scene.graph.nodes)
    assert result.error is None
    told = {event["data"]["node"]: event["data"]["text"] for event in result.named(EVENT)}
    plain, less = (re.fullmatch(r"(\d+)% of the work of CFG, [\d.]+ s per step, 8 steps(.*)", told[n]) for n in texts)
    left_out = int(re.fullmatch(r", (\d) left out by EasyCache", less[2])[1])
    assert plain[2] == "" and 4 <= left_out <= 7
    assert int(less[1]) == pytest.approx(int(plain[1]) * (8 - left_out) / 8, abs=1)
