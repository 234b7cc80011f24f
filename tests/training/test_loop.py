"""The training loop on tiny networks: it learns, resumes exactly, and saves when it is told to stop."""

import json
import math
import os
import shutil
import signal
import socket
import time
from dataclasses import replace

import pytest
import torch

from sparse_model.checkpoints.checkpoint import build, load
from sparse_model.method.sparsity import Route, Sparsity
from sparse_model.networks.dit import DiTConfig
from sparse_model.networks.maskdit import MaskDiTConfig
from sparse_model.networks.positions import sincos_positions
from sparse_model.training import loop
from sparse_model.training.augment import Augmentation
from sparse_model.training.config import CONFIGS, TrainConfig, changed
from sparse_model.training.data import Pictures
from sparse_model.training.duration import in_words, outlook
from sparse_model.training.loop import Run, train

NETWORKS = {
    "dit": (DiTConfig(8, 2, 3, 32, 3, 2, 2.0, num_classes=2), Sparsity((Route(1, 1, 0.5),))),
    "maskdit": (MaskDiTConfig(8, 2, 3, 32, 2, 2, 2.0, 2, 16, 2, 2), Sparsity(mask=0.5)),
}


@pytest.fixture
def pictures():
    """Two classes: something bright on the left, something dark on the right."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(40) % 2
    images = torch.randint(0, 60, (40, 8, 8, 3), generator=generator, dtype=torch.uint8)
    images[labels == 0, :, :4] += 190
    images[labels == 1, :, 4:] += 90
    return Pictures(images, labels, torch.arange(41), ("left", "right"))


@pytest.fixture(params=NETWORKS)
def config(request):
    network, sparsity = NETWORKS[request.param]
    return TrainConfig(
        network, sparsity, steps=6, batch=8, rate=3e-3, warmup=2, decay=2, ema=0.9, mae=0.1, held_out=8, early=2
    )


@pytest.fixture
def no_grid(monkeypatch):
    monkeypatch.setattr(loop, "save_grid", lambda *_: None)


def weights(run_folder, config, pictures):
    """Everything that a run would go on from: weights and averaged weights, full precision."""
    run = Run(config, pictures, run_folder)
    run.resume()
    return {"step": torch.tensor(run.step)} | {
        f"{part}.{name}": value.clone()
        for part, network in (("network", run.network), ("ema", run.ema.network))
        for name, value in network.state_dict().items()
    }


def assert_same(a, b):
    assert a.keys() == b.keys()
    different = [name for name in a if not torch.equal(a[name], b[name])]
    assert not different


@pytest.mark.parametrize(("step", "decay"), [(0, 0.1), (17, 18 / 27), (10_000, 0.9)])
def test_the_average_follows_quickly_at_first(step, decay):
    weights, average = torch.nn.Linear(3, 3), torch.nn.Linear(3, 3)
    expected = [
        decay * old + (1 - decay) * new for old, new in zip(average.parameters(), weights.parameters(), strict=True)
    ]
    loop.Ema(average).update(weights, step, 0.9)
    torch.testing.assert_close(list(average.parameters()), expected)


def test_the_seed_of_a_run_decides_the_tokens_of_its_steps(config, pictures, tmp_path):
    """Those of seed 0 are what they always were, so that its runs go on as they began."""

    def drawn(seed, step):
        Run(replace(config, seed=seed), pictures, tmp_path).batch(step)
        return torch.rand(8)

    first = drawn(0, 3)
    assert torch.equal(first, torch.rand(8, generator=torch.Generator().manual_seed(3 * 1_009)))
    assert not torch.equal(first, drawn(1, 3)) and not torch.equal(drawn(1, 3), drawn(1, 4))


def test_all_routes_are_trained_at_one_ratio(pictures, tmp_path):
    network, _ = NETWORKS["dit"]
    config = TrainConfig(network, Sparsity((Route(0, 0, 0.25), Route(1, 1, 0.5))), steps=1, batch=8, held_out=8)
    with pytest.raises(ValueError, match=r"the routes have the ratios 0\.25, 0\.5, but all are trained at one"):
        Run(config, pictures, tmp_path)
    same = replace(config, sparsity=Sparsity((Route(0, 0, 0.25), Route(1, 1, 0.25, factor=0.5))))
    assert Run(same, pictures, tmp_path).gamma == 0.25
    assert [loop.trained_rate(sparsity) for sparsity in (Sparsity(), Sparsity(mask=0.75))] == [0.0, 0.75]


def test_loss_falls(config, pictures, tmp_path):
    run = Run(TrainConfig(**{**vars(config), "steps": 40}), pictures, tmp_path)
    before = run.validate()
    start = {name: value.clone() for name, value in run.network.state_dict().items()}
    for _ in range(40):
        run.train_step()
    after = run.validate()
    gammas = ["gamma 0", "gamma 0.5", "gamma 0.9"]
    assert list(before) == [*gammas, *(f"training {gamma}" for gamma in gammas)]
    assert after["gamma 0"] < 0.8 * before["gamma 0"]
    still = {name for name, value in run.network.state_dict().items() if torch.equal(value, start[name])}
    assert still <= {"pos_embed", "decoder_pos_embed"}


def test_a_run_writes_what_it_promises(config, pictures, tmp_path):
    train(config, pictures, tmp_path, every=3)
    records = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == [3, 6]
    assert all(record.keys() >= {"gamma 0", "gamma 0.5", "gamma 0.9"} for record in records)
    assert all(record["loss"] is None for record in records)  # which is looked at every 20 steps, and NaN is no JSON
    assert {path.name for path in tmp_path.iterdir()} == {
        "config.json", "log.jsonl", "state", "early.safetensors", "model.safetensors",
        "grid-000003.png", "grid-000006.png",
    }  # fmt: skip
    network, spec = load(tmp_path / "model.safetensors")
    assert type(network).__name__.lower() == spec.architecture
    assert (spec.config, spec.sparsity, spec.labels) == (config.network, config.sparsity, ("left", "right"))
    early, _ = load(tmp_path / "early.safetensors")
    assert any(not torch.equal(a, b) for a, b in zip(early.parameters(), network.parameters(), strict=True))


def test_resuming_after_a_kill_changes_nothing(config, pictures, tmp_path, no_grid, monkeypatch):
    train(config, pictures, tmp_path / "whole", every=3)
    step = Run.train_step

    def killed(run):
        if run.step == 5:
            raise KeyboardInterrupt  # two steps past the last state, which must be repeated
        return step(run)

    monkeypatch.setattr(Run, "train_step", killed)
    with pytest.raises(KeyboardInterrupt):
        train(config, pictures, tmp_path / "halves", every=3)
    assert json.loads((tmp_path / "halves/state/step.json").read_text()) == 3
    monkeypatch.setattr(Run, "train_step", step)
    train(config, pictures, tmp_path / "halves", every=3)

    whole, halves = (weights(tmp_path / name, config, pictures) for name in ("whole", "halves"))
    assert whole["step"] == 6
    assert_same(whole, halves)
    exported = [load(tmp_path / name / "model.safetensors")[0].state_dict() for name in ("whole", "halves")]
    assert_same(*exported)


def test_a_finished_run_goes_on_with_more_steps(config, pictures, tmp_path, no_grid):
    train(config, pictures, tmp_path, every=6)
    train(TrainConfig(**{**vars(config), "steps": 8}), pictures, tmp_path, every=8)
    assert json.loads((tmp_path / "state/step.json").read_text()) == 8


@pytest.mark.parametrize(("steps", "every", "early"), [(40, 100, 0), (6, 100, 0), (40, 5, 0), (40, 100, 5)])
def test_a_run_that_diverges_stops_and_saves_nothing(
    config, pictures, tmp_path, no_grid, monkeypatch, steps, every, early
):
    """Whatever comes first: a look at the loss, the end, a report, the early export."""
    loss = Run.loss
    train(replace(config, steps=2, early=0), pictures, tmp_path)
    (tmp_path / "config.json").unlink()
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    monkeypatch.setattr(Run, "loss", lambda run, *inputs: loss(run, *inputs) * (math.nan if run.step == 4 else 1))
    told = r"training has diverged: at step \d+ the loss \(nan\).*lower the rate \(0.003\)"
    with pytest.raises(ValueError, match=told):
        train(replace(config, steps=steps, early=early), pictures, tmp_path, every=every)
    (tmp_path / "config.json").unlink()
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_weights_that_are_no_numbers_are_not_saved_either(config, pictures, tmp_path, no_grid, monkeypatch):
    """A finite loss can have a gradient that is not, also in the last step before a signal."""
    step = Run.train_step

    def overflowing(run):
        loss = step(run)
        if run.step == 3:
            next(run.network.parameters()).data[0] = math.inf
            os.kill(os.getpid(), signal.SIGTERM)
        return loss

    monkeypatch.setattr(Run, "train_step", overflowing)
    with pytest.raises(ValueError, match="or a weight is no finite number, so nothing was saved"):
        train(replace(config, early=0), pictures, tmp_path, every=100)
    assert {path.name for path in tmp_path.iterdir()} == {"config.json"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_signal_saves(config, pictures, tmp_path, no_grid, monkeypatch, number):
    step = Run.train_step

    def interrupted(run):
        if run.step == 3:
            os.kill(os.getpid(), number)
        return step(run)

    monkeypatch.setattr(Run, "train_step", interrupted)
    handlers = [signal.getsignal(kind) for kind in (signal.SIGTERM, signal.SIGINT)]
    assert train(config, pictures, tmp_path, every=100) == number
    assert json.loads((tmp_path / "state/step.json").read_text()) == 4
    assert (tmp_path / "model.safetensors").is_file()
    assert [signal.getsignal(kind) for kind in (signal.SIGTERM, signal.SIGINT)] == handlers


def told_to_stop(rank, config, pictures, out, port):
    """One of two processes of a run, of which the second is told to stop."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "ACCELERATE_USE_CPU": "true"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    step, loop.save_grid = Run.train_step, lambda *_: None

    def interrupted(run):
        if run.step == 3 and rank == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(run)

    Run.train_step = interrupted
    number = train(config, pictures, out, every=100)
    (out / f"{rank}.json").write_text(json.dumps(number))


@pytest.mark.slow
def test_processes_stop_together(config, pictures, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    processes = torch.multiprocessing.start_processes(
        told_to_stop, (config, pictures, tmp_path, port), nprocs=2, join=False, start_method="spawn"
    )
    ended = time.monotonic() + 120
    while not processes.join(timeout=5):
        if time.monotonic() > ended:
            for process in processes.processes:
                process.kill()
            pytest.fail("one process waits for the other")
    assert [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)] == [None, signal.SIGTERM]
    assert json.loads((tmp_path / "state/step.json").read_text()) == 4


def test_speed_counts_the_pictures_of_all_processes(config, pictures, tmp_path, no_grid, monkeypatch):
    clock = iter(range(1000))  # a second passes whenever somebody looks
    monkeypatch.setattr(loop.time, "monotonic", lambda: float(next(clock)))
    speeds = []
    for count in (1, 2):
        monkeypatch.setattr(loop.Accelerator, "num_processes", count)
        monkeypatch.setattr(Run, "agreed", lambda run, wish: wish)
        train(config, pictures, tmp_path / str(count), every=6)
        speeds.append(json.loads((tmp_path / str(count) / "log.jsonl").read_text())["pictures/s"])
    assert speeds[1] == 2 * speeds[0] > 0


@pytest.mark.parametrize("moment", ["before the new state is in place", "before the old state is gone"])
def test_a_kill_while_saving_loses_nothing(config, pictures, tmp_path, no_grid, moment):
    train(config, pictures, tmp_path, every=6)
    saved = weights(tmp_path, config, pictures)
    if moment == "before the new state is in place":
        os.replace(tmp_path / "state", tmp_path / "state.old")
    else:
        shutil.copytree(tmp_path / "state", tmp_path / "state.old")
    assert_same(weights(tmp_path, config, pictures), saved)
    train(config, pictures, tmp_path, every=6)  # finished, so it only saves
    assert_same(weights(tmp_path, config, pictures), saved)
    assert not (tmp_path / "state.old").exists()


def test_no_time_is_enough_time_to_save(config, pictures, tmp_path, no_grid):
    train(config, pictures, tmp_path, minutes=0)
    assert json.loads((tmp_path / "state/step.json").read_text()) == 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="said on a CPU only")
def test_a_cpu_says_once_how_long_it_will_take(config, pictures, tmp_path, no_grid, capsys):
    train(config, pictures, tmp_path, every=3)
    before, *after = capsys.readouterr().out.split("on this CPU, so 4 steps take")
    assert "after two steps of 8 pictures" in before
    assert len(after) == 1 and "every 3 steps" in after[0]


def test_how_long_a_run_takes_in_words():
    text = outlook(58.0, 8300, 500)
    assert (
        "58 s on this CPU, so 8,300 steps take 5.6 days" in text and "every 500 steps (--every), which take 8.1" in text
    )
    assert [in_words(seconds) for seconds in (40, 89, 100, 5_400, 200_000)] == [
        "40 seconds", "89 seconds", "1.7 minutes", "1.5 hours", "2.3 days",
    ]  # fmt: skip


def test_dropped_labels_leave_the_null_condition(config, pictures, tmp_path):
    dropped = Run(TrainConfig(**{**vars(config), "label_drop": 1.0}), pictures, tmp_path)
    kept = Run(TrainConfig(**{**vars(config), "label_drop": 0.0}), pictures, tmp_path)
    assert dropped.batch(0)[1].sum() == 0
    assert kept.batch(0)[1].sum() == config.batch
    assert torch.equal(dropped.batch(0)[0], kept.batch(0)[0])
    assert not torch.equal(kept.batch(0)[3], kept.batch(1)[3])


def test_labels_are_dropped_one_by_one(config, pictures, tmp_path):
    pictures = replace(pictures, labels=torch.arange(2).repeat(40), offsets=2 * torch.arange(41))  # both, always
    plain = Run(replace(config, label_drop=0.0, batch=400), pictures, tmp_path)
    dropping = Run(replace(config, label_drop=0.0, batch=400, word_drop=0.25), pictures, tmp_path)
    y = dropping.batch(0)[1]
    assert plain.batch(0)[1].all()
    assert 0.2 < (1 - y).mean() < 0.3
    assert 100 < (y.sum(dim=1) == 1).sum() < 200, "most often one of the two is left: 0.375 of the pictures"
    for a, b in zip(plain.batch(0)[2:], dropping.batch(0)[2:], strict=True):
        assert torch.equal(a, b), "the noise is the same"


def test_training_pictures_are_augmented_and_validation_is_not(config, pictures, tmp_path):
    pictures = replace(pictures, symmetric=torch.arange(40) < 20)
    plain = Run(config, pictures, tmp_path)
    mirroring = Run(replace(config, augmentation=Augmentation(mirror=1.0)), pictures, tmp_path)
    before, after = plain.batch(0)[0], mirroring.batch(0)[0]
    mirrored = (after == before.flip(3)).flatten(1).all(dim=1)
    assert 0 < mirrored.sum() < len(before)
    assert torch.equal(after[~mirrored], before[~mirrored])
    assert plain.validate() == mirroring.validate()


def test_training_losses_are_those_of_training_pictures(config, pictures, tmp_path):
    run = Run(config, pictures, tmp_path)
    losses = run.validate()
    run.held_out, run.train_index = run.train_index[:8], run.held_out
    swapped = run.validate()
    for gamma in ("gamma 0", "gamma 0.5", "gamma 0.9"):
        assert swapped[gamma] == losses[f"training {gamma}"] != losses[gamma] == swapped[f"training {gamma}"]


def test_parts_of_a_configuration_can_be_set():
    config = changed("icons-64", ["augmentation.hue=0.5", "network.width=96", "word_drop=0"])
    assert (config.augmentation.hue, config.network.width, config.word_drop) == (0.5, 96, 0)
    with pytest.raises(ValueError, match="'augmentation.blur' is not a setting"):
        changed("icons-64", ["augmentation.blur=1"])


def test_only_masked_training_reconstructs(config, pictures, tmp_path):
    losses = []
    for mae in (0.0, 5.0):
        run = Run(TrainConfig(**{**vars(config), "mae": mae}), pictures, tmp_path)
        losses.append(run.loss(*run.batch(0)).detach())
    assert torch.equal(*losses) == (config.sparsity.mask is None)


def test_networks_start_as_dit_does(config, pictures, tmp_path):
    """Blocks start as the identity (adaLN-Zero) and the output as 0; small embeddings, sine-cosine positions."""
    network = Run(config, pictures, tmp_path).network
    state = network.state_dict()
    zero = {name for name, value in state.items() if not value.any()}
    assert zero == {
        name for name in state if "bias" in name or "adaLN_modulation" in name or name == "final_layer.linear.weight"
    }
    for name in zero ^ state.keys():
        if "embedding_table" in name or "t_embedder" in name or name == "mask_token":
            assert 0.01 < state[name].std() < 0.03, name
        elif name.endswith("pos_embed"):
            assert torch.equal(state[name], sincos_positions(state[name].shape[2], 4, 4, 4))
        else:
            matrix = state[name].flatten(1)
            assert matrix.abs().max() <= (6 / sum(matrix.shape)) ** 0.5, name
            assert matrix.std() > 0.7 * (2 / sum(matrix.shape)) ** 0.5, name


@pytest.mark.parametrize("name", CONFIGS)
def test_ready_configurations_are_whole(name, pictures):
    """Each names a registered network whose sparsity fits it, small enough to bundle in eight bits."""
    spec = loop.spec_of(CONFIGS[name], pictures)
    with torch.device("meta"):
        network = build(spec)
    assert spec.sparsity
    assert list(spec.sparsity.stretches(spec.config.depth))
    assert sum(parameter.numel() for parameter in network.parameters()) < 15e6
    assert (spec.sparsity.mask is not None) == (CONFIGS[name].mae > 0)
