"""What the host answers the editor's scripts before a run: the plan of a Sparsity Scheduler, the labels of a model."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from graphs import SPEC, Graph, write_checkpoint
from host import Host

from sparse_model.checkpoints.bundled import DEFAULT, DEFAULT_LABELS
from sparse_model.checkpoints.checkpoint import build
from sparse_model.checkpoints.spec import Setting
from sparse_model.method.schedule import PRESETS

CUSTOM: dict[str, Any] = {
    "rule": "SG",
    "start_percent": 0.0,
    "end_percent": 1.0,
    "selection": "exact",
    **{
        f"{name}_{part}": value
        for name, value in (("gamma_strong", 0.25), ("gamma_weak", 0.75), ("omega", 2.0))
        for part, value in (("start", value), ("end", 0.5), ("shape", "constant"), ("keyframes", ""))
    },
}


def plan(host: Host, preset: str, values: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    response = host.post("/sparse_guidance/plan", {"preset": preset, "values": values or {}, **more})
    response.raise_for_status()
    return response.json()


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_uses_no_other_widget(host: Host, preset: str) -> None:
    answer = plan(host, preset, CUSTOM)
    assert answer["used"] == ["preset"]
    assert answer["rule"] == PRESETS[preset].rule
    assert {len(values) for values in answer["curves"].values()} == {161}
    assert max(answer["curves"]["omega"]) == PRESETS[preset].omega.high


def test_the_models_own_plan_brings_its_steps(host: Host) -> None:
    answer = plan(host, "from the model", model_name=DEFAULT.name)
    assert answer["steps"] > 0 and max(answer["curves"]["omega"]) > 1
    assert "no model is connected" in plan(host, "from the model")["error"]
    assert "no checkpoint 'absent'" in plan(host, "from the model", model_name="absent")["error"]


OFFERING = "offering.safetensors"
"""A file that offers settings by name."""


@pytest.fixture
def offering(host: Host) -> str:
    own = (Setting("0.5 of CFG", PRESETS["SG_FLOPS"], 11), Setting("1 of CFG", PRESETS["HPSv3"], 12))
    folder = host.directory / "models" / "diffusion_models"
    folder.mkdir(parents=True, exist_ok=True)
    write_checkpoint(folder / OFFERING, replace(SPEC, settings=own))
    return OFFERING


def test_a_setting_of_the_file_is_shown(host: Host, offering: str) -> None:
    """Under "from the model" alone, with its own steps; the recommended one where no name is given."""
    own = plan(host, "from the model", {"setting": ""}, model_name=offering)
    assert own["used"] == ["preset", "model", "setting"] and own["settings"] == ["0.5 of CFG", "1 of CFG"]
    assert own["curves"]["gamma_strong"][0] == 0.25
    half = plan(host, "from the model", {"setting": " 0.5 of CFG\n"}, model_name=offering)
    assert half["curves"] == plan(host, "SG_FLOPS")["curves"] and half["steps"] == 11
    wrong = plan(host, "from the model", {"setting": "fast"}, model_name=offering)
    assert wrong["error"] == "This model's file has no settings 'fast'; it offers '0.5 of CFG', '1 of CFG'."
    assert wrong["settings"] == own["settings"], "they are suggested while the name is typed"
    other = plan(host, "HPSv3", {"setting": "0.5 of CFG"}, model_name=offering)
    assert other["used"] == ["preset"] and other["curves"] == plan(host, "HPSv3")["curves"]


def test_a_setting_is_asked_for_where_there_may_be_one(host: Host) -> None:
    without = "icons-32-patch4.safetensors"
    assert "setting" not in plan(host, "from the model", model_name=without)["used"]
    assert "setting" in plan(host, "from the model", {"setting": "fast"}, model_name=without)["used"]
    assert "setting" in plan(host, "from the model", model_name=DEFAULT.name)["used"]
    assert "setting" in plan(host, "from the model", connected=True)["used"], "of a loader that is not known"
    assert "setting" not in plan(host, "from the model")["used"]


def test_a_setting_of_the_file_is_what_runs(host: Host, offering: str) -> None:
    graph = Graph()
    model = graph.model(offering)
    about = graph.add("PreviewAny", source=[model[0], 1])
    plots = [
        graph.sparsity(preset="from the model", model=model),
        graph.sparsity(preset="from the model", model=model, setting="0.5 of cfg (11 steps)\n"),
        graph.sparsity(preset="SG_FLOPS"),
    ]
    shown = [graph.add("PreviewImage", images=[node[0], 1])[0] for node in plots]
    result = host.run(graph.nodes)
    recommended, half, flops = (result.pixels(node) for node in shown)
    assert np.array_equal(half, flops) and not np.array_equal(half, recommended)
    (said,) = result.outputs[about[0]]["text"]
    lines = said.splitlines()
    names = lines.index("Settings for Sparsity Scheduler:") + 1
    assert lines[names : names + 2] == ["  0.5 of CFG (11 steps)", "  1 of CFG (12 steps)"]

    graph = Graph()
    wrong = graph.sparsity(preset="from the model", model=graph.model(offering), setting="fast")
    graph.add("PreviewImage", images=[wrong[0], 1])
    error = host.run(graph.nodes).error
    assert error is not None and "'fast'; it offers '0.5 of CFG', '1 of CFG'." in error["exception_message"]


def test_widgets_that_decide_nothing_are_not_used(host: Host) -> None:
    used = set(plan(host, "custom", CUSTOM)["used"])
    assert "gamma_weak_start" in used and "gamma_weak_end" not in used
    assert "gamma_weak_end" in plan(host, "custom", {**CUSTOM, "gamma_weak_shape": "cosine"})["used"]
    assert "omega_start" not in plan(host, "custom", {**CUSTOM, "omega_keyframes": "0:2, 1:1"})["used"]
    assert not {"gamma_weak_start", "selection"} & set(plan(host, "custom", {**CUSTOM, "rule": "CFG"})["used"])


def test_a_contradiction_is_said_before_the_run(host: Host) -> None:
    assert "sparser" in plan(host, "custom", {**CUSTOM, "gamma_strong_start": 0.75})["error"]
    assert "gamma_weak: " in plan(host, "custom", {**CUSTOM, "gamma_weak_keyframes": "oops"})["error"]
    assert plan(host, "custom", {})["error"] == "These values are incomplete."


def test_a_samplers_cfg_takes_omegas_place(host: Host) -> None:
    scaled = plan(host, "SG_FLOPS", scale=4.0)
    assert scaled["scaled"] and max(scaled["curves"]["omega"]) == 4
    beside = plan(host, "custom", {**CUSTOM, "rule": "SG beside CFG"}, scale=4.0)
    assert not beside["scaled"] and max(beside["curves"]["omega"]) == 2


def test_labels(host: Host) -> None:
    known = host.get("/sparse_guidance/labels", model_name=DEFAULT.name).json()
    assert {label.strip() for label in DEFAULT_LABELS.split(",")} <= set(known)
    assert host.get("/sparse_guidance/labels", model_name="../../etc/passwd").json() == []


def peak(host: Host) -> int:
    """The most memory, in bytes, that the server has used since it was last asked."""
    process = Path("/proc", str(host.pid))
    (found,) = (line for line in (process / "status").read_text().splitlines() if line.startswith("VmHWM"))
    (process / "clear_refs").write_text("5")
    return 1024 * int(found.split()[1])


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the memory of a process is read from /proc")
def test_a_pickle_is_not_read_into_memory_to_be_looked_at(host: Host) -> None:
    path = host.directory / "models" / "diffusion_models" / "large.pt"
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"ema": build(SPEC).state_dict(), "opt": {"m": torch.zeros(1 << 26)}}, path)  # 256 MiB
    peak(host)
    before = peak(host)
    known = host.get("/sparse_guidance/labels", model_name=path.name).json()
    assert known == ["0", "1", "2"]
    assert peak(host) - before < 1 << 26
    path.unlink()


def route(host: Host, **values: Any) -> dict[str, Any]:
    fresh = {"route": "short route", "start_layer": 2, "end_layer": -2, "ratio": 0.5, "json": ""}
    response = host.post("/sparse_guidance/route", {**fresh, **values})
    response.raise_for_status()
    return response.json()


def test_what_only_a_run_knows(host: Host) -> None:
    """A value that comes over a link: nothing is drawn in its place, unless it decides nothing."""
    later = "is known in a run; the"
    for name in ("preset", "rule", "gamma_weak_start", "omega_keyframes"):
        preset = True if name == "preset" else "custom"
        assert f"What comes to {name} {later}" in plan(host, preset, {**CUSTOM, name: True})["error"]
    for name in ("setting", "gamma_weak_end"):
        assert plan(host, "custom", {**CUSTOM, name: True})["curves"] == plan(host, "custom", CUSTOM)["curves"]
    own = plan(host, "SG_FLOPS", CUSTOM)
    scaled = plan(host, "SG_FLOPS", CUSTOM, scale=True)
    assert scaled["scaled"] and not own["scaled"] and scaled["curves"] == own["curves"]
    assert f"What comes to ratio {later}" in route(host, route="custom", ratio=True)["text"]


def test_one_way_to_give_a_route_at_a_time(host: Host) -> None:
    """And what it is, in words, before any run."""
    short = route(host)
    assert short["used"] == ["route", "lora"] and short["text"].startswith("Two blocks a third of the way in.")
    custom = route(host, route="custom")
    assert custom["used"] == ["route", "start_layer", "end_layer", "ratio"]
    assert custom["text"].startswith("Blocks 2 to -2, trained at ratio 0.5.")
    written = '{"routes": [{"start_layer_idx": 1, "end_layer_idx": 3, "selection_ratio": 0.25}]}'
    pasted = route(host, json=written)
    assert pasted["used"] == ["route", "json"]
    assert pasted["text"].splitlines() == [
        "Blocks 1 to 3, trained at ratio 0.25.",
        "The JSON replaces the route 'short route'.",
    ]
    assert route(host, route="trainer's JSON", json=written)["text"] == "Blocks 1 to 3, trained at ratio 0.25."
    empty = route(host, route="trainer's JSON")
    assert empty["used"] == ["route", "json"] and "paste the trainer's" in empty["text"]
    assert "is outside" in route(host, route="custom", ratio=1.5)["text"]
    assert "incomplete" in route(host, start_layer="two")["text"]
