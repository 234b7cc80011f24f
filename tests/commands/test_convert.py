"""Every form in which a family's weights come, to one file that says what it is."""

import json
import struct
from dataclasses import replace

import pytest
import torch
from published_files import FILES, write_published
from safetensors.torch import load_file, save_file

from sparse_model.__main__ import main
from sparse_model.checkpoints.checkpoint import load, read


def metadata(path):
    data = path.read_bytes()
    return json.loads(data[8 : 8 + struct.unpack("<Q", data[:8])[0]])["__metadata__"]


@pytest.mark.parametrize("name", FILES)
def test_a_published_file_becomes_safetensors_with_its_record(tmp_path, name):
    source, target = tmp_path / name, tmp_path / "converted.safetensors"
    write_published(source, FILES[name])
    assert main(["convert", str(source), str(target), "--dtype", "bfloat16", "--license", "MIT"]) == 0
    before, weights = read(source)
    after, converted = read(target)
    assert after == replace(before, license="MIT", note="")
    assert converted.keys() == weights.keys()
    assert all(torch.equal(converted[key], weights[key].bfloat16()) for key in weights)
    record = metadata(target)
    assert record["modelspec.architecture"] == f"sparse-{before.architecture}"
    assert json.loads(record["sparse_model"])["sparsity"] == json.loads(before.sparsity.to_json())
    load(target)


def test_in_8_bits(tmp_path):
    name = "sprint_XL_imagenet256.safetensors"
    write_published(tmp_path / name, FILES[name])
    for dtype in ("float16", "int8"):
        assert main(["convert", str(tmp_path / name), str(tmp_path / f"{dtype}.safetensors"), "--dtype", dtype]) == 0
    (spec, half), (other, small) = (read(tmp_path / f"{dtype}.safetensors") for dtype in ("float16", "int8"))
    assert spec == other and small.keys() == half.keys()
    for key, value in half.items():
        assert (small[key].float() - value.float()).norm() <= 0.02 * value.float().norm(), key


@pytest.mark.parametrize("form", ["ckpt", "compiled", "shards"])
def test_other_forms(tmp_path, form):
    """A trainer's .ckpt, keys of a compiled network, and shards with an index give the same file."""
    name = "sprint_XL_imagenet256.safetensors"
    write_published(tmp_path / name, FILES[name])
    state, source = load_file(tmp_path / name), tmp_path / name
    if form == "ckpt":
        source = tmp_path / "last.ckpt"
        torch.save({"epoch": 3, "ema": state, "model": {key: 0 * value for key, value in state.items()}}, source)
    elif form == "compiled":
        save_file({f"_orig_mod.{key}": value for key, value in state.items()}, source)
    else:
        places = {key: f"model-{i % 2 + 1:05}-of-00002.safetensors" for i, key in enumerate(state)}
        for shard in set(places.values()):
            save_file({key: value for key, value in state.items() if places[key] == shard}, tmp_path / shard)
        source = tmp_path / "model.safetensors.index.json"
        source.write_text(json.dumps({"weight_map": places}))
    assert main(["convert", str(source), str(tmp_path / "out.safetensors")]) == 0
    spec, converted = read(tmp_path / "out.safetensors")
    assert spec.architecture == "sprint" and spec.sparsity.mask == 0.75
    assert all(torch.equal(converted[key], state[key]) for key in state)


def test_a_route_takes_the_place_of_a_mask(tmp_path):
    name = "dit_4_channel_37M_real_and_synthetic_data.pt"
    write_published(tmp_path / name, FILES[name])
    assert main(["convert", str(tmp_path / name), str(tmp_path / "out.safetensors"), "--route", "0", "-1"]) == 0
    spec, _ = read(tmp_path / "out.safetensors")
    assert spec.sparsity.mask is None and [route.layers(2) for route in spec.sparsity.routes] == [range(2)]
