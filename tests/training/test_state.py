"""What a run goes on from: nothing in its folder runs code, and what does not fit is one sentence."""

import json
import pickle
import shutil
from dataclasses import replace

import pytest
import torch
from full_disk import full_disk
from safetensors.torch import load_file, save_file

from sparse_model.method.sparsity import Route, Sparsity
from sparse_model.networks.dit import DiTConfig
from sparse_model.training import loop
from sparse_model.training.config import TrainConfig
from sparse_model.training.data import Pictures
from sparse_model.training.loop import train

CONFIG = TrainConfig(
    DiTConfig(8, 2, 3, 32, 3, 2, 2.0, num_classes=2), Sparsity((Route(1, 1, 0.5),)),
    steps=4, batch=8, rate=3e-3, warmup=2, decay=2, ema=0.9, held_out=8, early=2,
)  # fmt: skip
ACCELERATE = (  # what accelerate would load from a state, unpickling the first of them
    "custom_checkpoint_0.pkl", "random_states_0.pkl", "pytorch_model.bin", "optimizer.bin", "optimizer_1.bin",
    "scheduler.bin", "scaler.pt", "sampler.bin",
)  # fmt: skip


@pytest.fixture
def pictures():
    labels = torch.arange(40) % 2
    images = torch.randint(0, 255, (40, 8, 8, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return Pictures(images, labels, torch.arange(41), ("left", "right"))


@pytest.fixture
def run(pictures, tmp_path, monkeypatch):
    """A folder with a run of 2 of 4 steps, and what goes on with it."""
    monkeypatch.setattr(loop, "save_grid", lambda *_: None)

    def go_on(config=CONFIG, every=2):
        train(config, pictures, tmp_path / "run", every=every)

    go_on(replace(CONFIG, steps=2))
    go_on.folder, go_on.state = tmp_path / "run", tmp_path / "run" / "state"
    return go_on


class Attack:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return (open, (str(self.marker), "w"))


def plant(path, marker, form):
    if form == "torch":
        torch.save({"network": torch.zeros(1), "step": Attack(marker)}, path)
    else:
        path.write_bytes(pickle.dumps(Attack(marker)))


@pytest.mark.parametrize("form", ["pickle", "torch"])
def test_no_file_of_a_run_folder_runs_code(run, tmp_path, form):
    marker, whole = tmp_path / "it ran", tmp_path / "whole"
    plant(tmp_path / "proof.pkl", marker, "pickle")
    with open(tmp_path / "proof.pkl", "rb") as file:
        pickle.load(file).close()
    assert marker.exists()
    marker.unlink()
    shutil.copytree(run.folder, whole)
    files = [path.relative_to(whole) for path in whole.rglob("*") if path.is_file()]
    assert len(files) >= 6
    for name in files:
        shutil.rmtree(run.folder)
        shutil.copytree(whole, run.folder)
        for other in ACCELERATE:
            plant(run.state / other, marker, form)
        plant(run.folder / name, marker, form)
        if name.parts[0] == "state":
            with pytest.raises(ValueError, match=r"state' is damaged or incomplete .* name another --out"):
                run()
        else:
            run()  # nothing that a run goes on from
        assert not marker.exists(), name


@pytest.mark.parametrize("damage", ["missing", "short", "empty", "text", "folder"])
@pytest.mark.parametrize("name", ["network.safetensors", "average.safetensors", "optimizers.safetensors", "step.json"])
def test_a_damaged_state_is_one_sentence(run, name, damage):
    path = run.state / name
    data = path.read_bytes()
    path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage != "missing":
        path.write_bytes({"short": data[: len(data) // 2], "empty": b"", "text": b"[1, 2"}[damage])
    with pytest.raises(ValueError, match="state' is damaged or incomplete") as caught:
        run()
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


@pytest.mark.parametrize("step", ["-1", "null", "true", '{"a": 1}', "1e400"])
def test_a_step_that_is_none(run, step):
    (run.state / "step.json").write_text(step)
    with pytest.raises(ValueError, match="damaged or incomplete"):
        run()


def test_values_that_are_not_finite_are_damage(run):
    state = load_file(run.state / "average.safetensors")
    state["x_embedder.proj.bias"][3] = float("nan")
    save_file(state, run.state / "average.safetensors")
    with pytest.raises(ValueError, match=r"x_embedder.proj.bias holds values that are not finite"):
        run()


@pytest.mark.parametrize("key", ["0.0.momentum_buffer", "9.0.momentum_buffer", "0.999.x", "what", "0.x.y"])
def test_an_optimizer_of_something_else(run, key):
    tensors = load_file(run.state / "optimizers.safetensors")
    save_file({**tensors, key: torch.zeros(3)}, run.state / "optimizers.safetensors")
    with pytest.raises(ValueError, match="damaged or incomplete"):
        run()


@pytest.mark.parametrize(("network", "difference"), [
    ({"width": 64}, r"is \[.*32.*\] there and \[.*64.*\] here"), ({"depth": 4}, r"blocks\.3\..* is in this one alone"),
])  # fmt: skip
def test_a_network_of_another_size_in_the_same_folder(run, network, difference):
    before = {path: path.read_bytes() for path in run.state.iterdir()}
    with pytest.raises(ValueError, match=rf"state' is the state of another network \(.*{difference}\); name another"):
        run(replace(CONFIG, network=replace(CONFIG.network, **network)))
    assert {path: path.read_bytes() for path in run.state.iterdir()} == before


def test_a_full_disk_keeps_the_last_state(run):
    before = {path.name: path.read_bytes() for path in run.state.iterdir()}
    with full_disk(), pytest.raises(OSError, match=r"could not be written: .*; make room and call the same again"):
        run()
    assert {path.name: path.read_bytes() for path in run.state.iterdir()} == before
    assert not (run.folder / "state.new").exists()
    run()
    assert json.loads((run.state / "step.json").read_text()) == 4


def test_what_a_killed_run_left_is_gone_after_the_next_start(run):
    (run.folder / "state.new").mkdir()
    (run.folder / "state.new" / "network.safetensors").write_bytes(b"half")
    left = run.folder / f".model.safetensors.{'0123456789abcdef' * 2}"
    left.write_bytes(b"half")
    run()
    assert not left.exists() and not (run.folder / "state.new").exists()


def test_a_state_of_adamw_in_many_operations_goes_on_in_one(pictures, tmp_path, monkeypatch):
    """As runs saved it before: the count of steps as a number on the CPU."""
    monkeypatch.setattr(loop, "save_grid", lambda *_: None)
    made, found = loop.optimizers, {}

    def in_many(network, config):
        muon, adamw = made(network, config)
        others = adamw.param_groups[0]["params"]
        return [muon, torch.optim.AdamW(others, lr=config.rate, betas=(0.9, 0.99), weight_decay=0.0)]

    for name, second in (("many", in_many), ("one", made)):
        monkeypatch.setattr(loop, "optimizers", in_many)
        train(replace(CONFIG, steps=2), pictures, tmp_path / name, every=2)
        monkeypatch.setattr(loop, "optimizers", second)
        train(CONFIG, pictures, tmp_path / name, every=2)
        found[name] = load_file(tmp_path / name / "state" / "network.safetensors")
    assert json.loads((tmp_path / "one" / "state" / "step.json").read_text()) == 4
    for name, value in found["many"].items():
        torch.testing.assert_close(found["one"][name], value, rtol=1e-4, atol=1e-5)
