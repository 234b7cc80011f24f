"""The commands as a person runs them."""

import argparse
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from full_disk import full_disk
from PIL import Image

from sparse_model.__main__ import main
from sparse_model.checkpoints.bundled import DEFAULT
from sparse_model.checkpoints.checkpoint import read, save
from sparse_model.checkpoints.spec import ModelSpec
from sparse_model.commands import train
from sparse_model.method.prediction import Flow
from sparse_model.method.sparsity import Route, Sparsity
from sparse_model.networks.dit import DiT, DiTConfig
from sparse_model.training.config import CONFIGS
from sparse_model.training.icons import Icon, pack
from sparse_model.training.icons import save as save_arrays

ROOT = Path(__file__).parents[2]
INFO = {"noto": {"name": "Noto", "author": {"name": "somebody"}, "license": {"spdx": "Apache-2.0"}}}


@pytest.fixture
def checkpoint(tmp_path):
    config = DiTConfig(8, 2, 3, 32, 3, 1, num_classes=2)
    torch.manual_seed(0)
    network = DiT(config)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    spec = ModelSpec("dit", config, Flow("data"), Sparsity((Route(1, 1),)), ("cat", "dog"), "pixels", title="tiny")
    save(network.state_dict(), spec, tmp_path / "tiny.safetensors")
    return tmp_path / "tiny.safetensors"


def run(*arguments):
    return main([str(argument) for argument in arguments])


def test_cost_prints_the_papers_figures(capsys):
    arguments = "cost --arch SiT-XL/2 --start 2 --end 24 --gamma-strong 0.5 --gamma-weak 0.9 --json"
    assert run(*arguments.split()) == 0
    figures = json.loads(capsys.readouterr().out)
    assert list(figures) == ["unguided", "cfg", "strong", "weak", "shared", "total"]
    assert figures["strong"] + figures["weak"] == pytest.approx(97.67, rel=0.002)
    assert figures["total"] == pytest.approx(figures["strong"] + figures["weak"] - figures["shared"], abs=2e-4)
    assert figures["total"] < 89.5
    assert figures["cfg"] == pytest.approx(228.84, rel=0.002)


def test_sample_draws_rows_that_differ_and_repeat(checkpoint, tmp_path, capsys):
    for name in ("a.png", "b.png"):
        assert run("sample", "cat", "dog", "--checkpoint", checkpoint, "--steps", 4, "--out", tmp_path / name) == 0
    a, b = (np.asarray(Image.open(tmp_path / name)) for name in ("a.png", "b.png"))
    assert np.array_equal(a, b)
    height = (a.shape[0] - 18) // 3
    rows = [a[18 + i * height + 18 : 18 + (i + 1) * height] for i in range(3)]  # without the titles
    assert not np.array_equal(rows[0], rows[1]) and not np.array_equal(rows[1], rows[2])


def test_cfg_beside_an_interval_of_sparse_guidance(checkpoint, tmp_path, capsys):
    """Rows of no guidance, CFG alone and both; outside the interval CFG goes on alone. At 1 there is no CFG."""
    beside = ("sample", "cat", "--checkpoint", checkpoint, "--steps", 4, "--rule", "SG beside CFG", "--omega", 3)
    gammas = ("--gamma-strong", 0, "--gamma-weak", 1)

    def rows(*options):
        assert run(*beside, *gammas, *options, "--out", tmp_path / "out.png") == 0
        return np.asarray(Image.open(tmp_path / "out.png"))

    three, two = rows("--cfg", 2, "--until", 0.5), rows()
    assert (three.shape[0] - 18) // 3 == (two.shape[0] - 18) // 2
    never = rows("--cfg", 2, "--from", 0.9, "--until", 0.9)
    high = (never.shape[0] - 18) // 3
    cfg, both = (never[18 + i * high + 18 : 18 + (i + 1) * high] for i in (1, 2))
    assert np.array_equal(cfg, both)
    assert not np.array_equal(three[18 + 2 * high + 18 :], both)


def test_cost_of_cfg_beside_sparse_guidance(capsys):
    plain = "cost --json --rule CFG --gamma-strong 0 --gamma-weak 0 --omega 2"
    beside = ["cost", "--json", "--preset", "PDG", "--omega", "2", "--rule"]
    costs = []
    for arguments in (plain.split(), [*beside, "SG beside CFG", "--cfg", "3"], [*beside, "SG beside CFG"]):
        assert run(*arguments) == 0
        costs.append(json.loads(capsys.readouterr().out)["total"])
    assert costs[0] < costs[1] < 1.1 * costs[0] and costs[2] < 0.6 * costs[0]


def test_the_selection_is_an_option(checkpoint, tmp_path):
    pictures = []
    for selection in ("exact", "structured"):
        command = ("sample", "cat", "--checkpoint", checkpoint, "--steps", 2, "--selection", selection)
        assert run(*command, "--out", tmp_path / f"{selection}.png") == 0
        pictures.append(np.asarray(Image.open(tmp_path / f"{selection}.png")))
    assert not np.array_equal(*pictures)


def test_the_earlier_checkpoint_is_found_beside_the_model(checkpoint, tmp_path, capsys):
    command = ("sample", "cat", "--checkpoint", checkpoint, "--rule", "AG", "--gamma-strong", 0, "--gamma-weak", 0)
    assert run(*command, "--omega", 2, "--steps", 2, "--out", tmp_path / "out.png") == 2
    assert "AG needs a weaker second checkpoint of the same model; name it by --auxiliary" in capsys.readouterr().err
    checkpoint.with_name("tiny-early.safetensors").write_bytes(checkpoint.read_bytes())
    assert run(*command, "--omega", 2, "--steps", 2, "--out", tmp_path / "out.png") == 0


def test_the_bundled_model_makes_its_picture(tmp_path):
    assert run("sample", "twemoji, fox", "--steps", 3, "--out", tmp_path / "out.png") == 0
    assert Image.open(tmp_path / "out.png").size[1] > 300


def test_sampling_needs_nothing_but_requirements_txt(checkpoint, tmp_path):
    """In a process where every package of the other requirement files is as good as not installed."""
    needed = {line.split(">=")[0] for line in (ROOT / "requirements.txt").read_text().split() if ">=" in line}
    others = [*ROOT.glob("requirements-*.txt"), ROOT / "tests" / "requirements.txt"]
    extra = {line.split(">=")[0].split("==")[0] for path in others for line in path.read_text().split() if "=" in line}
    command = ["sample", "cat", "--checkpoint", str(checkpoint), "--steps", "2", "--out", str(tmp_path / "out.png")]
    script = (
        "import sys; sys.modules |= dict.fromkeys(" + repr(sorted(extra - needed)) + ")\n"
        f"from sparse_model.__main__ import main; sys.exit(main({command!r}))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert {"accelerate", "matplotlib", "optuna"} <= extra - needed
    assert done.returncode == 0 and (tmp_path / "out.png").is_file(), done.stderr


def test_training_begins_with_the_bundled_default():
    """Its configuration is called as the model is, and fits what the model's file says."""
    parser = train.add_parser(argparse.ArgumentParser().add_subparsers())
    name = parser.parse_args(["data.npz", "--out", "run"]).config
    spec = read(DEFAULT)[0]
    assert name == DEFAULT.stem
    assert replace(CONFIGS[name].network, num_classes=spec.config.num_classes) == spec.config


def test_pictures_of_another_size_than_the_network_are_refused(tmp_path, capsys):
    save_arrays(tmp_path / "data.npz", pack([Icon("noto", "cat", "", "")], np.zeros((1, 16, 16, 3), np.uint8), INFO, 1))
    code = run("train", tmp_path / "data.npz", "--out", tmp_path / "run", "--set", "filters={}")
    assert code == 2
    assert "holds pictures of 16 x 16 pixels, but the network takes 64 x 64" in capsys.readouterr().err


def test_sparse_settings_need_a_route(checkpoint, tmp_path, capsys):
    spec, state = read(checkpoint)
    save(state, replace(spec, sparsity=Sparsity()), tmp_path / "dense.safetensors")
    dense = ["sample", "cat", "--checkpoint", tmp_path / "dense.safetensors", "--steps", 2, "--out", tmp_path / "o.png"]
    assert run(*dense) == 2
    assert "dense.safetensors: has no token route" in capsys.readouterr().err
    assert run(*dense, "--rule", "CFG", "--gamma-strong", 0, "--gamma-weak", 0) == 0


def test_convert_and_inspect(checkpoint, tmp_path, capsys):
    labels = tmp_path / "names.txt"
    labels.write_text("red\nblue\n")
    target = tmp_path / "out.safetensors"
    options = ["--dtype", "float16", "--route", 0, -1, "--labels", labels, "--preset", "HPSv3", "--title", "new"]
    assert run("convert", checkpoint, target, *options) == 0
    spec, state = read(target)
    assert spec.labels == ("red", "blue") and spec.sparsity.routes == (Route(0, -1, 0.5),) and spec.title == "new"
    assert {value.dtype for value in state.values()} == {torch.float16}
    assert run("inspect", target) == 0
    assert "layers 0 to -1 routed at ratio 0.5" in capsys.readouterr().out


HOSTILE = "\x1b]0;gone\x07\x1b[31m\u202eno\nsense"


def test_text_of_files_reaches_no_terminal_as_it_is(checkpoint, tmp_path, capsys):
    spec, state = read(checkpoint)
    long = "x" * 100_000
    save(state, replace(spec, title=HOSTILE, labels=(HOSTILE, long), note=HOSTILE), tmp_path / "hostile.safetensors")
    assert run("inspect", tmp_path / "hostile.safetensors") == 0
    out = capsys.readouterr().out
    assert run("sample", "cat", "--checkpoint", tmp_path / "hostile.safetensors", "--out", tmp_path / "o.png") == 2
    error = capsys.readouterr().err
    assert run("sample", HOSTILE + long, "--checkpoint", checkpoint, "--out", tmp_path / "o.png") == 2
    typed = capsys.readouterr().err
    for text in (out, error, typed):
        assert text.isascii() or "\u2026" in text
        assert all(character.isprintable() or character == "\n" for character in text)
        assert len(text) < 6000
    assert "]0;gone" in out and out.count("\n") <= 5 and error.count("\n") == typed.count("\n") == 1


def test_a_full_disk_is_one_sentence_and_leaves_what_was_there(checkpoint, tmp_path, capsys):
    picture, model = tmp_path / "out.png", tmp_path / "out.safetensors"
    for path in (picture, model):
        path.write_text("old")
    with full_disk(5_000):
        assert run("sample", "cat", "dog", "--checkpoint", checkpoint, "--steps", 1, "--out", picture) == 2
        assert run("convert", checkpoint, model) == 2
    errors = capsys.readouterr().err.splitlines()
    for path in (picture, model):
        assert path.read_text() == "old"
        assert any(f"'{path}' could not be written: File too large." in line for line in errors)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.png", "out.safetensors", "tiny.safetensors"]


@pytest.mark.parametrize("names", ["red\n", "red\nblue\ngreen\n", "\n"])
def test_labels_are_as_many_as_classes(checkpoint, tmp_path, capsys, names):
    """One more in front, say of a background, would shift all others."""
    labels = tmp_path / "names.txt"
    labels.write_text(names)
    assert run("convert", checkpoint, tmp_path / "out.safetensors", "--labels", labels) == 2
    assert f"has {len(names.split()) or 1} names, but the model has 2 classes" in capsys.readouterr().err


def test_labels_that_are_no_text(checkpoint, tmp_path, capsys):
    assert run("convert", checkpoint, tmp_path / "out.safetensors", "--labels", checkpoint) == 2
    assert f"'{checkpoint}' is no text of one name a line" in capsys.readouterr().err
    assert run("convert", checkpoint, tmp_path / "out.safetensors", "--labels", tmp_path / "none.txt") == 2
    assert f"'{tmp_path / 'none.txt'}': No such file or directory." in capsys.readouterr().err


def test_more_held_out_than_there_is(tmp_path, capsys):
    save_arrays(tmp_path / "data.npz", pack([Icon("noto", "cat", "", "")], np.zeros((1, 32, 32, 3), np.uint8), INFO, 1))
    small = "--config", "icons-32", "--set", "filters={}"
    assert run("train", tmp_path / "data.npz", "--out", tmp_path / "run", *small) == 2
    assert "has 1 pictures, of which 256 are held out" in capsys.readouterr().err


BAD = {
    "sample nonsense": "'nonsense' is not a label",
    "sample --steps 0": "--steps: 0 is too small; at least 1.",
    "sample --steps many": "--steps: invalid whole number value: 'many'",
    "sample --seed 99999999999999999999999": "--seed: 99999999999999999999999 is too large",
    "sample --out out.foo": "--out 'out.foo' is no picture that can be written; end it in .png.",
    "sample --out /tmp": "--out '/tmp' is no picture that can be written",
    "sample --preset XX": "invalid choice: 'XX'",
    "sample --gamma-strong 1.5": "gamma_strong 1.5 is outside",
    "sample --gamma-strong 0.9 --gamma-weak 0.5": "not below gamma_weak 0.5",
    "sample --omega wavy": "'wavy' is not a curve",
    "sample --rule XYZ": "--rule 'XYZ' is unknown",
    "sample --cfg 2": "--cfg 2: the rule CFG + SG has no CFG scale of its own; use --omega.",
    "cost --cfg 2": "--cfg 2: the rule SG has no CFG scale of its own; use --omega.",
    "sample --cfg -1": "--cfg: -1 is too small",
    "sample --from 0.6 --until 0.4": "the active interval 0.6 to 0.4 must rise",
    "sample --until 1.5": "--until: 1.5 is too large; at most 1.",
    "sample --checkpoint none.safetensors": "no such file",
    "sample --out no/such/folder/out.png": "does not exist",
    "cost --arch UNet": "architecture 'UNet' is unknown",
    "cost --start 9 --end 3": "reversed",
    "cost --start 2 --end 40": "leaves the network",
    "convert none.pt out.pt": "must end in .safetensors",
    "train nowhere --out runs/x": "no training data at 'nowhere'",
    "train nowhere --out runs/x --set speed=9": "'speed' is not a setting",
    "train nowhere --out runs/x --set batch=0": "'batch=0' does not fit: it must be at least 1.",
    "train nowhere --out runs/x --set steps=abc": "'steps=abc' does not fit: steps is a whole number",
    "train nowhere --out runs/x --set output=foo": "'output=foo' does not fit: use one of data, velocity.",
    "train nowhere --out runs/x --every 0": "--every: 0 is too small; at least 1.",
    "train nowhere --out runs/x --minutes nan": "--minutes: invalid number value: 'nan'",
    "train nowhere --out runs/x --minutes -1": "--minutes: -1 is too small",
    "sweep --budget nan": "--budget: invalid number value: 'nan'",
    "sweep --budget inf": "--budget: inf is too large",
    "sweep --trials 0": "--trials: 0 is too small",
    "sweep --search-samples 5": "--search-samples: 5 is too small; at least 6.",
    "cost --size 3": "--size 3 is no multiple of the network's patches of 2.",
    "cost --size 0": "--size: 0 is too small",
    "cost --size -4": "--size: -4 is too small",
    "cost --steps 0": "--steps: 0 is too small",
    "convert none.pt nowhere/out.safetensors": "the folder 'nowhere' does not exist",
    "convert none.pt out.safetensors --steps 0": "--steps: 0 is too small",
    "frobnicate": "invalid choice",
}


@pytest.mark.parametrize("line", BAD)
def test_a_bad_argument_is_one_sentence_and_exit_code_2(line, capsys):
    try:
        code = run(*line.split())
    except SystemExit as stop:
        code = stop.code
    error = capsys.readouterr().err
    assert code == 2
    assert BAD[line] in error
    assert error.count("\n") == 1


def test_the_module_runs_and_its_help_reads_well():
    result = subprocess.run([sys.executable, "-m", "sparse_model", "--help"], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0
    for command in ("sample", "train", "convert", "inspect", "cost"):
        assert command in result.stdout


def test_a_reader_that_has_enough_is_no_error(checkpoint):
    """As with `| head`: whoever reads the output closes it early."""
    command = [sys.executable, "-m", "sparse_model", "inspect", str(checkpoint)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141
