"""Checkpoints in several files, in small floats, and larger than what may be copied."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sparse_model.__main__ import main
from sparse_model.checkpoints import checkpoint
from sparse_model.checkpoints.checkpoint import CheckpointError
from sparse_model.checkpoints.source import model_name
from sparse_model.method.sparsity import Route, Sparsity
from sparse_model.networks.prx import PRX, PRXConfig
from sparse_model.tensors import finite

CONFIG = PRXConfig(width=32, depth=8, heads=2, mlp_ratio=2.0, text_width=12)


@pytest.fixture
def state():
    network = PRX(CONFIG)
    return {key: torch.randn_like(value) for key, value in network.state_dict().items()}


def write_shards(folder: Path, state: dict[str, torch.Tensor], count: int = 3, index: bool = True) -> list[Path]:
    """Weights as diffusers writes a large model; the shards' paths."""
    folder.mkdir(parents=True)
    keys = sorted(state)
    files = [folder / f"diffusion_pytorch_model-{i + 1:05}-of-{count:05}.safetensors" for i in range(count)]
    for i, file in enumerate(files):
        save_file({key: state[key] for key in keys[i::count]}, file)
    if index:
        places = {key: file.name for i, file in enumerate(files) for key in keys[i::count]}
        (folder / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    return files


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_a_sharded_model_loads_from_whatever_is_named(tmp_path, state):
    files = write_shards(tmp_path / "prx-512-t2i" / "transformer", state)
    folder = files[0].parent
    for path in (folder.parent, folder, folder / "diffusion_pytorch_model.safetensors.index.json", files[1]):
        spec, loaded = checkpoint.read(path)
        assert same(loaded, state)
        assert spec.title == "prx-512-t2i" and spec.config == replace(CONFIG, input_size=64)
        assert "records no route" in spec.note and spec.sparsity.routes[0].end == 4


@pytest.mark.parametrize(
    ("scheduler", "index", "shift", "size"),
    [
        ({"shift": 1.5}, {"default_sample_size": 1024}, 1.5, 128),
        ({}, {"default_sample_size": None}, 3.0, 64),
        ([], {"default_sample_size": 1001}, 3.0, 64),
    ],
)
def test_the_files_of_a_pipeline_say_more(tmp_path, state, scheduler, index, shift, size):
    """Its scheduler's shift and its size go before what the family usually has; nonsense does not."""
    files = write_shards(tmp_path / "lions" / "transformer", state)
    (tmp_path / "lions" / "scheduler").mkdir()
    (tmp_path / "lions" / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler))
    (tmp_path / "lions" / "model_index.json").write_text(json.dumps(index))
    for path in (tmp_path / "lions", files[0]):
        spec, _ = checkpoint.read(path)
        assert (spec.title, spec.prediction.shift, spec.config.input_size) == ("lions", shift, size)


def test_shards_need_no_index(tmp_path, state):
    files = write_shards(tmp_path / "prx-1024", state, index=False)
    for path in (files[2], tmp_path / "prx-1024"):
        assert same(checkpoint.read(path)[1], state)


def test_a_missing_shard_is_named(tmp_path, state):
    files = write_shards(tmp_path / "prx" / "transformer", state)
    files[1].unlink()
    message = r"its shard diffusion_pytorch_model-00002-of-00003.safetensors is missing \(2 of 3 are there\)"
    for path in (tmp_path / "prx", files[0], files[0].parent / "diffusion_pytorch_model.safetensors.index.json"):
        with pytest.raises(CheckpointError, match=message) as error:
            checkpoint.read(path)
        assert str(error.value).count("\n") == 0


def test_shards_that_hold_the_same_are_refused(tmp_path, state):
    files = write_shards(tmp_path / "prx", state)
    files[2].write_bytes(files[1].read_bytes())
    with pytest.raises(CheckpointError, match="prx: two of its shards hold the tensor "):
        checkpoint.read(tmp_path / "prx")


def test_tensors_in_two_layouts_are_refused(tmp_path, state):
    twice = {**state, "blocks.0.attn_out.weight": state["blocks.0.attention.to_out.0.weight"] + 1}
    save_file(twice, tmp_path / "prx.safetensors")
    with pytest.raises(CheckpointError, match="some tensors twice"):
        checkpoint.read(tmp_path / "prx.safetensors")


def test_a_damaged_shard_is_named(tmp_path, state):
    files = write_shards(tmp_path / "prx", state)
    files[2].write_bytes(files[2].read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="its shard .*-00003-of-00003.safetensors: not a whole safetensors file"):
        checkpoint.read(tmp_path / "prx")


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "not an index of shards"), ("[]", "not an index"), ('{"weight_map": {"a": "../b.safetensors"}}', "outside")],
)
def test_a_bad_index_is_one_sentence(tmp_path, text, message):
    (tmp_path / "a.safetensors.index.json").write_text(text)
    with pytest.raises(CheckpointError, match=message):
        checkpoint.read(tmp_path)


def test_folders_without_one_model_are_refused(tmp_path, state):
    with pytest.raises(CheckpointError, match=r"holds no .safetensors file"):
        checkpoint.read(tmp_path)
    save_file(state, tmp_path / "a.safetensors")
    assert same(checkpoint.read(tmp_path)[1], state)
    save_file(state, tmp_path / "b.safetensors")
    with pytest.raises(CheckpointError, match=r"several models, such as a.safetensors and b.safetensors"):
        checkpoint.read(tmp_path)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("prx-512-t2i.safetensors", "prx-512-t2i"),
        ("prx-512-t2i/transformer/diffusion_pytorch_model.safetensors", "prx-512-t2i"),
        ("prx-512-t2i/diffusion_pytorch_model.fp16.safetensors", "prx-512-t2i"),
        ("prx-7b/transformer/diffusion_pytorch_model-00001-of-00003.safetensors", "prx-7b"),
        ("prx-7b-00001-of-00003.safetensors", "prx-7b"),
        ("prx-7b/transformer/diffusion_pytorch_model.safetensors.index.json", "prx-7b"),
    ],
)
def test_names(path, name):
    assert model_name(Path(path)) == name


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2])
def test_small_floats(tmp_path, state, dtype):
    save_file({key: value.to(dtype) for key, value in state.items()}, tmp_path / "prx.safetensors")
    _, loaded = checkpoint.read(tmp_path / "prx.safetensors")
    assert {value.dtype for value in loaded.values()} == {dtype}
    network, _ = checkpoint.load(tmp_path / "prx.safetensors")
    expected = {key: value.to(dtype).float() for key, value in state.items()}
    assert same(network.state_dict(), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2])
def test_what_is_not_finite_is_found_anywhere(dtype):
    tensor = torch.zeros((1 << 22) + 100).to(dtype)
    assert finite(tensor)
    for place in (0, 1 << 22, -1):
        damaged = tensor.clone()
        damaged[place] = float("nan")
        assert not finite(damaged)


PEAK = """
import resource, sys, torch
from dataclasses import replace
from sparse_model.checkpoints.checkpoint import load
from sparse_model.networks.layers import TORCH

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

before = peak()
network, spec = load(sys.argv[1], replace(TORCH, dtype=getattr(torch, sys.argv[2])))
print(peak() - before)
"""


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bfloat16", "float8_e4m3fn"])
@pytest.mark.parametrize("sharded", [False, True], ids=["one file", "shards"])
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is counted in other units elsewhere")
def test_loading_takes_the_file_and_one_layer(tmp_path, dtype, sharded):
    """A model of 0.5 GB, measured in a process of its own, beyond what PyTorch itself takes."""
    config = PRXConfig(width=1536, depth=6, heads=24, text_width=64)
    with torch.device("meta"):
        shapes = {key: value.shape for key, value in PRX(config).state_dict().items()}
    state = {key: torch.full(shape, 0.1, dtype=torch.bfloat16) for key, shape in shapes.items()}
    size, largest = (sum(value.nbytes for value in state.values()), max(value.nbytes for value in state.values()))
    assert size > 4e8
    if sharded:
        write_shards(tmp_path / "prx", state)
    else:
        save_file(state, tmp_path / "prx.safetensors")
    path = tmp_path / ("prx" if sharded else "prx.safetensors")
    del state
    run = subprocess.run(
        [sys.executable, "-c", PEAK, str(path), dtype], capture_output=True, text=True, check=True,
        cwd=Path(__file__).parent.parent,
    )  # fmt: skip
    assert int(run.stdout) < size + 2 * largest + 32e6


def test_convert_makes_one_file_of_shards(tmp_path, state, capsys):
    """A sharded folder in half precision to one file with the route that somebody knows, whatever it is called."""
    write_shards(tmp_path / "prx-256-t2i" / "transformer", state)
    target = tmp_path / "mine.safetensors"
    options = ["--route", "1", "-2", "--ratio", "0.25", "--dtype", "float16", "--title", "My PRX"]
    assert main(["convert", str(tmp_path / "prx-256-t2i"), str(target), *options]) == 0
    spec, loaded = checkpoint.read(target)
    assert same(loaded, {key: value.half() for key, value in state.items()})
    assert spec.sparsity == Sparsity((Route(1, -2, 0.25),)) and spec.title == "My PRX" and not spec.note
    found, _ = checkpoint.read(tmp_path / "prx-256-t2i")
    assert (spec.config, spec.text, spec.prediction) == (found.config, found.text, found.prediction)
    assert main(["inspect", str(tmp_path / "prx-256-t2i")]) == 0
    assert "records no route" in capsys.readouterr().out
    assert main(["sample", "a lion", "--checkpoint", str(target), "--out", str(tmp_path / "a.png")]) == 2
    assert "which ComfyUI encodes" in capsys.readouterr().err
