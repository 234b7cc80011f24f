"""What an artist gets wrong: one sentence in the node's error box, and the queue goes on."""

import json
import os
import pickle
import shutil
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests
import torch
from graphs import SPEC, Graph, sampled_latents, sentence, write_checkpoint
from host import Host

from sparse_model.method.prediction import EDM
from sparse_model.method.sparsity import Sparsity


class Code:
    """Pickles to a call that would leave a trace."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, ("/tmp/pickle-was-run", "w"))


@pytest.fixture(scope="session", autouse=True)
def files(host: Host) -> Path:
    folder = host.directory / "models" / "diffusion_models"
    folder.mkdir(parents=True, exist_ok=True)
    state = write_checkpoint(folder / "tiny.safetensors")
    whole = (folder / "tiny.safetensors").read_bytes()
    (folder / "truncated.safetensors").write_bytes(whole[: len(whole) // 2])
    (folder / "not-a-model.safetensors").write_text("<html>404</html>")
    (folder / "absurd-header.safetensors").write_bytes(struct.pack("<Q", 2**62) + b"{}")
    (folder / "code.pt").write_bytes(pickle.dumps({"pos_embed": Code()}))
    torch.save({**state, "pos_embed": torch.full_like(state["pos_embed"], torch.nan)}, folder / "unnamed.pt")
    write_checkpoint(folder / "no-route.safetensors", replace(SPEC, sparsity=Sparsity(), schedule=None))
    write_checkpoint(folder / "edm.safetensors", replace(SPEC, prediction=EDM()))
    write_checkpoint(folder / "wide.safetensors", replace(SPEC, config=replace(SPEC.config, width=64)))
    write_checkpoint(folder / "older.safetensors", seed=3)
    write_checkpoint(folder / "large.safetensors", replace(SPEC, config=replace(SPEC.config, input_size=32)))
    return folder


def base(name: str = "tiny.safetensors", labels: str = "cat") -> tuple[Graph, list, list, list]:
    graph = Graph()
    model = graph.model(name)
    positive, _ = graph.labels(model, labels)
    return graph, model, positive, graph.add("EmptySparseLatent", model=model, batch_size=1, width=0, height=0)


def end(graph: Graph, *parts: list, **values: Any) -> Graph:
    graph.save(graph.sparse_sampled(*parts, **values))
    return graph


def test_no_file_keeps_the_pack_from_loading(host: Host) -> None:
    """A config.json that is nested too deeply, and one that is a pipe, are left out of the lists."""
    for place in ("text_encoders", "vae", "diffusion_models"):
        for name in ("deep", "pipe"):
            (host.directory / "models" / place / name).mkdir(parents=True, exist_ok=True)
        (host.directory / "models" / place / "deep" / "config.json").write_text("[" * 100_000)
        os.mkfifo(host.directory / "models" / place / "pipe" / "config.json")
    for node, field in (("SparseTextEncoder", "folder"), ("SparseVAELoader", "folder")):
        options = str(host.object_info(node)["input"]["required"][field])
        assert "deep" not in options and "pipe" not in options


@pytest.mark.skipif(os.name != "posix", reason="names that are not UTF-8 are POSIX's")
def test_a_name_that_is_not_utf8(host: Host, files: Path) -> None:
    """Neither a damaged file of such a name nor a good one ends the worker that runs prompts."""
    damaged, good = (os.fsdecode(name) for name in (b"caf\xe9.safetensors", b"gar\xe7on.safetensors"))
    (files / damaged).write_bytes(b"nothing")
    shutil.copy(files / "tiny.safetensors", files / good)
    graph, *parts = base(damaged)
    assert sentence(host, end(graph, *parts)).startswith("caf?.safetensors: not a whole safetensors file")
    graph, *parts = base(good)
    assert host.run(end(graph, *parts).nodes).error is None


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("truncated.safetensors", "not a whole safetensors file"),
        ("not-a-model.safetensors", "not a whole safetensors file"),
        ("absurd-header.safetensors", "not a whole safetensors file"),
        ("code.pt", "could run code"),
        ("unnamed.pt", "not finite"),
    ],
)
def test_checkpoints(host: Host, name: str, words: str) -> None:
    graph, *parts = base(name)
    text = sentence(host, end(graph, *parts))
    assert text.startswith(name)
    assert words in text
    assert not Path("/tmp/pickle-was-run").exists()


SCHEDULES = {
    "weak not sparser": ({"gamma_strong_start": 0.75}, "sparser"),
    "keyframes": ({"gamma_weak_keyframes": "0:0.9, oops"}, "gamma_weak: "),
    "keyframes outside": ({"gamma_weak_keyframes": "0:1.9"}, "outside [0, 1]"),
    "strong drops all": ({"gamma_strong_keyframes": "1", "gamma_weak_keyframes": "1"}, "outside [0, 1)"),
    "interval": ({"start_percent": 0.6, "end_percent": 0.4}, "interval"),
}


@pytest.mark.parametrize("case", SCHEDULES)
def test_schedules(host: Host, case: str) -> None:
    values, words = SCHEDULES[case]
    graph, *parts = base()
    assert words in sentence(host, end(graph, *parts, sparsity=graph.sparsity(**values)))


def unknown_label() -> Graph:
    graph, *parts = base(labels="roket")
    return end(graph, *parts)


def wrong_size() -> Graph:
    graph = Graph()
    model = graph.model()
    positive, _ = graph.labels(model, "cat")
    return end(graph, model, positive, graph.add("EmptySparseLatent", model=model, batch_size=1, width=18, height=16))


def cropped_latent(our_sampler: bool) -> Graph:
    graph, model, positive, _ = base()
    image = graph.add("EmptyImage", width=18, height=16, batch_size=1, color=0xFF0000)
    vae = graph.add("VAELoader", vae_name="pixel_space")
    latent = graph.add("VAEEncode", pixels=image, vae=vae)
    if our_sampler:
        return end(graph, model, positive, latent)
    graph.save(graph.sampled(model, positive, positive, latent))
    return graph


def wrong_channels() -> Graph:
    graph, model, positive, _ = base()
    # Empty latents are fitted to the model by the host; this one is not empty.
    latent = graph.add("EmptyLatentImage", width=128, height=128, batch_size=1)
    noise = graph.add("RandomNoise", noise_seed=1)
    added = {"noise": noise, "sigmas": graph.add("KarrasScheduler", steps=2, sigma_max=1.0, sigma_min=0.1, rho=7.0)}
    noised = graph.add("AddNoise", model=model, latent_image=latent, **added)
    return end(graph, model, positive, noised)


def no_route(as_patch: bool) -> Graph:
    graph, model, positive, latent = base("no-route.safetensors")
    if not as_patch:
        return end(graph, model, positive, latent)
    guided = graph.add("SparseGuidance", model=model, sparsity=graph.sparsity())
    graph.save(graph.sampled(guided, positive, positive, latent))
    return graph


def no_recommendation() -> Graph:
    graph, *parts = base("no-route.safetensors")
    return end(graph, *parts, preset="from the model")


def weak_model(name: str | None, rule: str = "AG + SG") -> Graph:
    graph, *parts = base()
    weak = {} if name is None else {"weak_model": parts[0] if name == "itself" else graph.model(name)}
    return end(graph, *parts, sparsity=graph.sparsity(rule=rule), **weak)


def auxiliary_on_a_stock_sampler() -> Graph:
    graph, model, positive, latent = base()
    guided = graph.add("SparseGuidance", model=model, sparsity=graph.sparsity(rule="AG"))
    graph.save(graph.sampled(guided, positive, positive, latent))
    return graph


def foreign_condition() -> Graph:
    graph, model, _, latent = base()
    other, _ = graph.labels(graph.model("icons-32-masked.safetensors"), "")
    return end(graph, model, other, latent)


CASES: dict[str, tuple[Callable[[], Graph], str]] = {
    "unknown label": (unknown_label, "rocket"),
    "size": (wrong_size, "use 16"),
    "latent, our sampler": (lambda: cropped_latent(True), "multiples of 4"),
    "latent, stock sampler": (lambda: cropped_latent(False), "multiples of 4"),
    "no route, our sampler": (lambda: no_route(False), "no token route"),
    "no route, patch": (lambda: no_route(True), "no token route"),
    "no recommendation": (no_recommendation, "recommends no settings"),
    "weak model missing": (lambda: weak_model(None), "connect an earlier checkpoint"),
    "weak model unwanted": (lambda: weak_model("wide.safetensors", "SG"), "takes no weak model"),
    "weak model is the model": (lambda: weak_model("itself"), "same loaded checkpoint"),
    "weak model of larger pictures": (lambda: weak_model("large.safetensors"), "its input size is 32 instead of 16"),
    "weak model of another kind": (lambda: weak_model("edm.safetensors"), "its prediction is EDM"),
    "auxiliary rule on a patch": (auxiliary_on_a_stock_sampler, "Sparse Guider"),
    "condition of another model": (foreign_condition, "labels"),
}


@pytest.mark.parametrize("case", CASES)
def test_one_sentence(host: Host, case: str) -> None:
    make, words = CASES[case]
    assert words in sentence(host, make())


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b"3", b"\xff\xfe", b'{"a":' * 100_000, b'{"preset": NaN}'])
def test_the_editors_questions_are_answered(host: Host, body: bytes) -> None:
    answer = requests.post(f"{host.url}/sparse_guidance/plan", data=body, timeout=60)
    assert answer.status_code in (200, 400) and answer.json()["error"].endswith("."), answer.text


def test_wrong_channels(host: Host) -> None:
    assert "channels" in sentence(host, wrong_channels())


def test_gamma_outside_its_range_is_refused_by_the_widget(host: Host) -> None:
    graph, *parts = base()
    result = host.run(end(graph, *parts, sparsity=graph.sparsity(gamma_weak_start=1.5)).nodes)
    assert result.error is not None
    assert "gamma_weak_start" in json.dumps(result.error)


def test_a_weak_model_may_be_of_another_size(host: Host) -> None:
    latents = [
        list(sampled_latents(host, weak_model(name)).values()) for name in ("wide.safetensors", "older.safetensors")
    ]
    assert torch.isfinite(latents[0][0]).all() and not torch.equal(latents[0][0], latents[1][0])


@pytest.mark.parametrize("kind", ["patch", "all in one", "weak model"])
def test_cancel_leaves_nothing_behind(host: Host, kind: str) -> None:
    """Cancelled in the middle, the same workflow afterwards gives what it gave before."""

    def build(steps: int, seed: int) -> tuple[Graph, str, str]:
        graph, model, positive, latent = base()
        rule = {"rule": "AG + SG"} if kind == "weak model" else {}
        schedule = graph.sparsity(**rule)
        values = {"steps": steps, "seed": seed}
        if kind == "patch":
            guided = graph.add("SparseGuidance", model=model, sparsity=schedule)
            sampled = graph.sampled(guided, positive, positive, latent, **values)
        else:
            weak = {"weak_model": graph.model("tiny-older.safetensors")} if rule else {}
            sampled = graph.sparse_sampled(model, positive, latent, sparsity=schedule, **values, **weak)
        return graph, sampled[0], graph.save(sampled)

    write_checkpoint(host.directory / "models" / "diffusion_models" / "tiny-older.safetensors", seed=3)
    graph, _, saved = build(4, seed=21)
    before = sampled_latents(host, graph)[saved]
    long, sampler, _ = build(5000, seed=22)

    def cancel(event: dict[str, Any]) -> None:
        if event["type"] == "progress" and event["data"]["value"] > 3:
            host.interrupt()

    result = host.run(long.nodes, on_event=cancel)
    assert result.error is not None
    assert result.error["type"] == "execution_interrupted"
    assert result.error["node_id"] == sampler
    host.post("/free", {"free_memory": True}).raise_for_status()  # sample again instead of answering from the cache
    assert torch.equal(before, sampled_latents(host, graph)[saved])
