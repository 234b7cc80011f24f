"""Sparse Guidance Sheet on a real host: a tiny random network, whose pictures are its pixels."""

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from graphs import SPEC, Scene, run, write_checkpoint, write_models
from host import Host

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session", autouse=True)
def models(host: Host) -> None:
    write_models(host)


class Sheets(Scene):
    def __init__(self, batch: int = 1) -> None:
        super().__init__(batch)
        self.vae = self.graph.add("VAELoader", vae_name="pixel_space")

    def sheet(self, **values: Any) -> str:
        rest = {
            "x_axis": "omega", "x_values": "2, 3, 3.0, 2", "y_axis": "gamma weak", "y_values": "0.5, 0.75",
            "preset": "SG_FLOPS", "cfg": 3.0, "seed": 5, "steps": 4, "sampler_name": "euler", "scheduler": "simple",
            "denoise": 1.0, "max_pictures": 36, "picture_size": 64,
        }  # fmt: skip
        known = {"model": self.model, "positive": self.positive, "latent_image": self.latent, "vae": self.vae}
        return self.graph.add("SparseGuidanceSheet", **{**known, **rest, **values})[0]

    def picture(self, samples: list) -> str:
        decoded = self.graph.add("VAEDecode", samples=samples, vae=self.vae)
        return self.graph.add("PreviewImage", images=decoded)[0]


def holds(sheet: np.ndarray, picture: np.ndarray) -> int:
    """How often a picture stands on a sheet, four times as large."""
    tile = picture.repeat(4, axis=0).repeat(4, axis=1)
    high, wide = tile.shape[:2]
    tops, lefts = (sheet[: 1 - high, : 1 - wide] == tile[0, 0]).all(axis=2).nonzero()
    places = zip(tops, lefts, strict=True)
    return sum(np.array_equal(sheet[top : top + high, left : left + wide], tile) for top, left in places)


def test_every_picture_is_that_of_its_own_sampling(host: Host) -> None:
    """Six that differ: no guidance, CFG, and four of eight in the grid, because 3 and 3.0 are one omega."""
    scene = Sheets()
    graph = scene.graph
    node = scene.sheet(preset="from the model")
    plan = {"selection": "exact", "gamma_strong_start": 0.25, "omega_start": 3.0}
    plans = [graph.sparsity(**plan, gamma_weak_start=gamma) for gamma in (0.5, 0.75)]
    sampled = [graph.sparse_sampled(scene.model, scene.positive, scene.latent, sparsity=each) for each in plans]
    ours = [scene.picture(samples) for samples in sampled]
    stock = [
        scene.picture(graph.sampled(scene.model, scene.positive, scene.null, scene.latent, cfg=cfg)) for cfg in (1, 3)
    ]
    before = host.log.count("Sparse Guidance Sheet: 6 pictures, 24 steps.")
    result = run(host, graph)
    assert host.log.count("Sparse Guidance Sheet: 6 pictures, 24 steps.") == before + 1
    (sheet,) = result.pixels(node)
    assert [holds(sheet, result.pixels(name)[0]) for name in stock] == [1, 1]
    assert [holds(sheet, result.pixels(name)[0]) for name in ours] == [2, 2]
    assert (24, 24) in result.progress


def test_an_interrupt_stops_it_between_pictures(host: Host) -> None:
    scene = Sheets(batch=3)
    node = scene.sheet(x_values=", ".join(f"{1.1 + i / 10:g}" for i in range(15)), steps=40, seed=8)
    stopped = []

    def stop(event: dict[str, Any]) -> None:
        if event["type"] == "progress" and event["data"]["value"] > 40 and not stopped:
            stopped.append(event["data"]["value"])
            host.interrupt()

    result = host.run(scene.graph.nodes, on_event=stop)
    assert result.error is not None and result.error["type"] == "execution_interrupted"
    assert max(value for value, _ in result.progress) < 32 * 40
    scene.graph.nodes[node]["inputs"] |= {"x_values": "2", "steps": 2}
    assert run(host, scene.graph).pixels(node).shape[0] == 1


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"x_values": ", ".join(map(str, range(2, 10000)))}, r"sheet has 10000 pictures, which would take about \d+"),
        ({"x_axis": "gamma weak"}, "Both axes of the sheet vary gamma weak"),
        ({"x_axis": "cfg"}, "the rule SG has no cfg of its own"),
        ({"x_values": "much"}, r"omega much: this is not a number\."),
        ({"x_values": "2 4; 6"}, "omega 2 4; 6: this is not a number; write commas between several"),
        ({"x_axis": "preset", "x_values": "sg_fid", "y_axis": "nothing"}, "second, weaker model"),
        ({"x_values": "150"}, r"omega 150: a guidance scale of 150 is outside \[0, 100\]; 1 is no guidance\."),
        ({"x_axis": "interval", "x_values": "0.5"}, "two numbers with a dash"),
        ({"x_axis": "steps", "x_values": "0"}, "at least 1 step"),
        ({"x_axis": "preset", "x_values": "SG_FID", "y_axis": "nothing"}, "second, weaker model"),
        ({"x_axis": "route end", "x_values": "9"}, "leaves the network: it has layers 0 to 3"),
        ({"y_values": " , "}, "y_values is empty"),
    ],
)  # fmt: skip
def test_one_sentence(host: Host, values: dict[str, Any], words: str) -> None:
    scene = Sheets()
    scene.sheet(**values, **({} if "y_axis" in values or "y_values" in values else {"y_values": "0.75"}))
    result = host.run(scene.graph.nodes)
    assert result.error is not None and result.error["type"] == "execution_error"
    text = result.error["exception_message"].strip()
    assert re.search(words, text) and "\n" not in text and text[-1] == ".", text


def test_axes(host: Host) -> None:
    """Each axis changes the picture, and what cannot be sampled is said in its place."""
    scene = Sheets()
    axes = {
        "route start": "1, 2", "interval": "0-1, 0.5-1", "steps": "3, 4", "preset": "SG_FLOPS, HPSv3",
        "gamma strong": "0.25, 0.5",
    }  # fmt: skip
    nodes = {
        axis: scene.sheet(x_axis=axis, x_values=values, y_axis="nothing", y_values="", preset="SG_FLOPS")
        for axis, values in axes.items()
    }
    skip = "like Skip Layer Guidance"  # has CFG besides, at the node's own scale; one of 8 steps is in its interval
    rest = {"y_axis": "nothing", "steps": 8}
    nodes["mixed"] = scene.sheet(x_axis="preset", x_values=f"SG_FLOPS, {skip}", preset="SG_FLOPS", **rest)
    nodes["cfg"] = scene.sheet(x_axis="cfg", x_values="1, 4", preset=skip, **rest)
    shown = {name: scene.graph.add("PreviewAny", source=[node, 1])[0] for name, node in nodes.items()}
    result = run(host, scene.graph)
    for axis, node in nodes.items():
        lines = result.outputs[shown[axis]]["text"][0].splitlines()
        assert len(lines) == 4 and all(re.search(r"cost \d\.\d\d, \d+\.\d\d s$", line) for line in lines), lines
        assert result.pixels(node).shape[0] == 1
        costs = [float(re.search(r"cost (\d\.\d\d)", line)[1]) for line in lines]
        assert costs[:2] == [1, 2]
        if axis in ("mixed", "cfg"):
            assert 0.5 < costs[2] < 1.9 and 2 < costs[3] < 3


def test_a_vae_of_another_model_is_refused_before_anything_is_sampled(host: Host) -> None:
    spec = replace(SPEC, config=replace(SPEC.config, in_channels=4), latent="sd")
    write_checkpoint(host.directory / "models" / "diffusion_models" / "latents.safetensors", spec)
    for other, words in (
        (True, "decodes latents of 3 channels, but this model makes 4"),
        (False, "holds no VAE"),
    ):
        scene = Sheets()
        scene.graph.nodes[scene.model[0]]["inputs"]["model_name"] = "latents.safetensors"
        scene.sheet(vae=scene.vae if other else [scene.model[0], 2])
        result = host.run(scene.graph.nodes)
        assert result.error is not None and words in result.error["exception_message"]
        assert result.progress == []
