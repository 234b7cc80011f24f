"""What measures on a GPU, rehearsed on a CPU at toy sizes: every file runs and keeps what the targets are read from."""

import json
import lzma
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from benchmarks import (
    carry,
    correctness,
    modes,
    overhead,
    profile_step,
    scaling,
    steps,
    targets,
    throughput_map,
    timing,
    training_step,
)
from sparse_model.training.config import CONFIGS
from sparse_model.training.data import load_packed

TOY = ["--toy", "--rounds", "1"]


@pytest.fixture
def measured(tmp_path, monkeypatch):
    """`measured(module, option, ...)` -> the rows that a benchmark kept."""
    monkeypatch.setattr(timing, "RESULTS", tmp_path)

    def run(module, name, *options):
        monkeypatch.setattr(sys, "argv", [module.__name__, *options])
        module.main()
        return json.loads((tmp_path / f"{name}.json").read_text())["rows"]

    return run


def test_a_step_of_training_is_timed_at_every_batch(measured, tmp_path):
    for number in range(12):
        (folder := tmp_path / "pictures" / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32), (20 * number, 90, 60)).save(folder / f"{number}.png")
    small = ["network.width=32", "network.depth=3", "network.heads=2", "held_out=2"]
    options = ["--config", "icons-32", "--batches", "2", "4", "--rounds", "2", "--set", *small]
    few, many = measured(training_step, "training_step", str(tmp_path / "pictures"), *options)
    assert (few["batch"], many["batch"]) == (2, 4) and few["ms"] > 0
    for row in (few, many):
        assert row["pictures/s"] == pytest.approx(1e3 * row["batch"] / row["ms"], rel=0.01)
        assert ("GPU busy ms" in row) == torch.cuda.is_available()


@pytest.mark.slow
def test_every_table_is_made_and_the_targets_are_read_from_it(measured, tmp_path, monkeypatch, capsys):
    names = "SiT-XL/2", "TR-DiT-2.5B", "HDM", "PRX"
    rows = measured(
        steps, "steps_trdit", *TOY, "--models", *names, "--batches", "1", "--dtypes", "float32", "--name", "steps_trdit"
    )
    assert [row["model"] for row in rows] == list(names)
    assert all(row["pictures per second"]["SG"] > 0 and row["promised"] > 1 for row in rows)

    rows = measured(modes, "modes", *TOY, "--dtype", "float32", "--modes", "eager", "eager, CUDA graph")
    assert rows[0]["difference"] == 0 and rows[0]["ms"]["SG"] > 0
    assert "failed" not in rows[0] and torch.cuda.is_available() != ("failed" in rows[1])

    rows = measured(profile_step, "profile", "--toy", "--steps", "2", "--dtype", "float32", "--models", "TR-DiT-2.5B")
    dense, sparse = rows
    assert sparse["attention"] > 0 and dense["matrix products"] > 0
    assert dense["gather and scatter"] == 0 < sparse["gather and scatter"]

    rows = measured(overhead, "overhead", "--toy", "--dtype", "float32", "--models", "SiT-XL/2")
    assert all(row["own ms per step"] > 0 for row in rows)

    assert len(measured(throughput_map, "throughput_map", *TOY, "--every", "0.5")) == 1
    (row,) = measured(scaling, "scaling", *TOY, "--sizes", "16", "--batches", "1")
    assert row["tokens"] == 64

    monkeypatch.setattr(sys, "argv", ["targets", str(tmp_path)])
    capsys.readouterr()
    targets.main()
    told = capsys.readouterr().out.splitlines()
    assert "reached" in told[0] and told[0].startswith("TR-DiT-2.5B, batch 1: pictures per second")
    assert told[2].endswith("not measured")  # batch 8


@pytest.mark.slow
def test_samples_and_passes_are_checked(measured, monkeypatch):
    given = "--networks", "dit", "--dtypes", "float32"
    rows = measured(correctness, "correctness", *given)
    assert {row["schedule"] for row in rows if "schedule" in row} == set(correctness.SCHEDULES)
    assert all(row["right"] for row in rows) and sum("check" in row for row in rows) == 4
    monkeypatch.setitem(correctness.TOLERANCES, "float32", -1.0)
    with pytest.raises(SystemExit, match="WRONG"):
        measured(correctness, "correctness", *given)


def test_targets_name_what_is_missed():
    row = {"model": "SiT-XL/2", "batch": 64, "times faster than CFG": 2.0}
    rows = [
        row,
        {**row, "failed": "x", "times faster than CFG": 9.0},
        {**row, "batch": 1, "times faster than CFG": 9.0},
    ]
    assert targets.best(iter(rows), "SiT-XL/2", 64, lambda row: row["times faster than CFG"]) == 2.0


def test_a_run_is_carried_away_and_back(tmp_path, monkeypatch):
    monkeypatch.setattr(carry, "PIECE", 20_000)
    run, away, back = (tmp_path / name for name in ("run", "away", "back"))
    (run / "state").mkdir(parents=True)
    away.mkdir()
    weights = {"a": torch.randn(100, 200), "count": torch.tensor(2401.0), "ids": torch.arange(5)}
    for name in ("network", "optimizers"):
        save_file(weights, run / "state" / f"{name}.safetensors")
    (run / "state" / "step.json").write_text("2401")
    (run / "log.jsonl").write_text("{}\n")
    (away / "training.09").write_bytes(b"of an earlier, longer run")
    pieces = carry.pack(run, away)
    assert len(pieces) > 2 and sorted(away.iterdir()) == pieces
    assert carry.unpack(away, back)
    for name, tolerance in (("network", 2e-3), ("optimizers", 1e-2)):
        found = load_file(back / "state" / f"{name}.safetensors")
        assert found["count"] == 2401 and torch.equal(found["ids"], weights["ids"])
        assert found["a"].dtype == torch.float32
        torch.testing.assert_close(found["a"], weights["a"], rtol=tolerance, atol=1e-6)
    assert (back / "state" / "step.json").read_text() == "2401" and (back / "log.jsonl").is_file()
    assert not carry.unpack(away, back)  # a run that has a state is left alone
    pieces[1].unlink()
    with pytest.raises((lzma.LZMAError, EOFError)):
        carry.unpack(away, tmp_path / "damaged")


def test_a_small_file_of_pictures_is_chosen_from_as_the_whole_one(tmp_path, monkeypatch):
    config = replace(
        CONFIGS["icons-32"], filters={"sets": ["a", "b"], "categories": ["x"], "min_sets": 2, "min_count": 2}
    )
    monkeypatch.setitem(CONFIGS, "tiny", config)
    names = [f"{source}:{subject}" for subject in range(20) for source in "abc"]
    np.savez(
        tmp_path / "whole.npz",
        images=np.random.default_rng(0).integers(0, 256, (60, 8, 8, 3), dtype=np.uint8),
        names=np.array(names),
        categories=np.array(["x" if i % 7 else "y" for i in range(60)]),
        labels=np.arange(120) % 9,
        label_offsets=np.arange(0, 121, 2),
        label_names=np.array([f"label {i}" for i in range(9)]),
    )
    count = carry.pictures(tmp_path / "whole.npz", tmp_path / "small.npz", "tiny")
    whole, small = (load_packed(tmp_path / f"{name}.npz", **config.filters) for name in ("whole", "small"))
    assert len(small) <= count < 60 and len(small) == len(whole) > 20 and small.label_names == whole.label_names
    for part in ("images", "labels", "offsets", "symmetric"):
        assert torch.equal(getattr(small, part), getattr(whole, part)), part
