"""Files that are checkpoints, and files that are not."""

import argparse
import json
import os
import pickle
import struct
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from sparse_model.checkpoints import checkpoint
from sparse_model.checkpoints.checkpoint import CheckpointError
from sparse_model.checkpoints.metadata import to_metadata
from sparse_model.checkpoints.spec import ModelSpec
from sparse_model.method.prediction import Epsilon, Flow
from sparse_model.method.schedule import PRESETS, constant
from sparse_model.method.sparsity import Route, Sparsity
from sparse_model.networks.dit import DiT, DiTConfig

CONFIG = DiTConfig(input_size=8, patch_size=2, in_channels=4, width=64, depth=3, heads=1, num_classes=5)


@pytest.fixture
def network():
    torch.manual_seed(0)
    network = DiT(CONFIG)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return network


@pytest.fixture
def spec():
    return ModelSpec("dit", CONFIG, Flow("data", 0, 1000.0), Sparsity((Route(1, -1),)), tuple("abcde"), "pixels")


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("schedule", [None, *PRESETS.values()])
def test_a_saved_checkpoint_loads_as_it_was(tmp_path, network, spec, schedule):
    spec = replace(spec, schedule=schedule, title="a model", license="Apache-2.0", steps=17)
    checkpoint.save(network.state_dict(), spec, tmp_path / "a.safetensors")
    loaded, found = checkpoint.load(tmp_path / "a.safetensors")
    assert found == spec
    assert same(loaded.state_dict(), network.state_dict())
    assert not loaded.training


def test_loading_can_be_stopped_between_two_tensors(tmp_path, network, spec):
    checkpoint.save(network.state_dict(), spec, tmp_path / "a.safetensors")
    asked = []

    def cancel():
        asked.append(True)
        if len(asked) == 3:
            raise KeyboardInterrupt

    with checkpoint.open_checkpoint(tmp_path / "a.safetensors") as opened, pytest.raises(KeyboardInterrupt):
        checkpoint.fill(DiT(CONFIG), opened, torch.float32, "cpu", cancel)
    assert len(asked) == 3


@pytest.mark.parametrize("key", ["ema_state_dict", "ema", "model", "state_dict"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod."])
def test_training_dictionaries_give_their_averaged_weights(tmp_path, network, key, prefix):
    state = {prefix + name: value for name, value in network.state_dict().items()}
    other = {name: torch.zeros_like(value) for name, value in state.items()}
    data = {"step": 3, "args": argparse.Namespace(lr=1e-4), "state_dict": other, key: state}
    torch.save(data, tmp_path / "last.pt")
    _, loaded = checkpoint.read(tmp_path / "last.pt")
    assert same(loaded, network.state_dict())


@pytest.mark.parametrize("patch, channels, learn_sigma", [(2, 4, False), (2, 4, True), (4, 3, False)])
def test_sizes_come_from_shapes(tmp_path, patch, channels, learn_sigma):
    config = DiTConfig(16, patch, channels, 384, 2, 6, num_classes=7, learn_sigma=learn_sigma)
    torch.save(DiT(config).state_dict(), tmp_path / "net.pt")
    spec, _ = checkpoint.read(tmp_path / "net.pt")
    assert spec.config == config
    assert isinstance(spec.prediction, Epsilon if learn_sigma else Flow)
    assert spec.labels == tuple("0123456")
    assert spec.latent == ("pixels" if channels == 3 else "sd")


@pytest.mark.parametrize("archive", [True, False], ids=["archive", "before 1.6"])
def test_a_pickle_is_looked_at_without_its_values(tmp_path, network, spec, archive):
    path = tmp_path / "tread.pt"
    torch.save({"ema": network.state_dict()}, path, _use_new_zipfile_serialization=archive)
    with checkpoint.open_checkpoint(path) as whole, checkpoint.open_checkpoint(path, values=False) as seen:
        assert seen.spec == whole.spec and seen.parameters == whole.parameters
        with pytest.raises(CheckpointError, match="known only when it is loaded"):
            dict(seen.each())


def test_a_model_of_1000_classes_knows_the_names_of_imagenet(tmp_path):
    torch.save(DiT(replace(CONFIG, num_classes=1000)).state_dict(), tmp_path / "net.pt")
    labels = checkpoint.read(tmp_path / "net.pt")[0].labels
    assert (labels[0], labels[207], labels[999]) == ("tench", "golden retriever", "toilet tissue")


def test_dit_and_sit_share_shapes_and_are_told_apart_by_name(tmp_path):
    state = DiT(replace(CONFIG, learn_sigma=True)).state_dict()
    for name, prediction in (("DiT-S-2.pt", Epsilon()), ("SiT-S-2.pt", Flow(clean_time=1))):
        torch.save(state, tmp_path / name)
        assert checkpoint.read(tmp_path / name)[0].prediction == prediction


def test_a_tread_checkpoint_gets_its_published_route(tmp_path):
    config = DiTConfig(input_size=4, width=768, depth=12, heads=12, num_classes=2)
    torch.save(DiT(config).state_dict(), tmp_path / "tread.pt")
    spec, _ = checkpoint.read(tmp_path / "tread.pt")
    assert spec.sparsity == Sparsity((Route(2, 8, 0.5),))
    assert (spec.schedule, spec.steps) == (constant(0.3, 0.7, 1.5), 40)
    assert "assumed" in spec.note


def test_a_dense_checkpoint_recommends_its_authors_guidance(tmp_path):
    torch.save(DiT(replace(CONFIG, learn_sigma=True)).state_dict(), tmp_path / "DiT.pt")
    spec, _ = checkpoint.read(tmp_path / "DiT.pt")
    assert (spec.schedule, spec.steps) == (constant(0, 0, 4, "CFG"), 250)


def test_half_precision_is_kept_and_metadata_is_standard(tmp_path, network, spec):
    path = tmp_path / "half.safetensors"
    checkpoint.save(network.state_dict(), spec, path, torch.float16)
    assert {value.dtype for value in load_file(path).values()} == {torch.float16}
    header = json.loads(path.read_bytes()[8 : 8 + struct.unpack("<Q", path.read_bytes()[:8])[0]])
    metadata = header["__metadata__"]
    assert metadata["modelspec.sai_model_spec"] == "1.0.0"
    assert metadata["modelspec.architecture"] == "sparse-dit"
    assert json.loads(metadata["sparse_model"])["sparsity"]["routes"] == [
        {"start_layer_idx": 1, "end_layer_idx": -1, "selection_ratio": 0.5}
    ]


def test_a_failed_save_leaves_the_old_file_and_nothing_else(tmp_path, network, spec, monkeypatch):
    path = tmp_path / "a.safetensors"
    checkpoint.save(network.state_dict(), spec, path)
    before = path.read_bytes()

    def full(tensors, name, metadata):
        Path(name).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(OSError, match="No space left"):
        checkpoint.save(network.state_dict(), spec, path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["a.safetensors"]


@pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX's")
@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_a_saved_file_has_the_mode_of_any_new_file(tmp_path, network, spec, umask, mode):
    before = os.umask(umask)
    try:
        for _ in range(2):  # a new file, and one that replaces another
            checkpoint.save(network.state_dict(), spec, tmp_path / "a.safetensors")
            assert (tmp_path / "a.safetensors").stat().st_mode & 0o777 == mode
    finally:
        os.umask(before)


class Evil:
    def __reduce__(self):
        return (os.system, ("touch pwned",))


def write_truncated(path, network, spec):
    checkpoint.save(network.state_dict(), spec, path)
    path.write_bytes(path.read_bytes()[:-1000])


def write_absurd_header(path, network, spec):
    path.write_bytes(struct.pack("<Q", 2**62) + b"{}")


def write_text(path, network, spec):
    path.write_text("<html>404: not found</html>")


def write_nothing(path, network, spec):
    path.write_bytes(b"")


def write_nan(path, network, spec):
    state = network.state_dict()
    state["blocks.1.attn.qkv.weight"][3, 4] = float("nan")
    checkpoint.save(state, spec, path)


def write_wrong_shape(path, network, spec):
    state = {**network.state_dict(), "blocks.1.attn.proj.bias": torch.zeros(3)}
    checkpoint.save(state, spec, path)


def write_missing(path, network, spec):
    state = network.state_dict()
    del state["blocks.2.mlp.fc1.weight"]
    checkpoint.save(state, spec, path)


def write_lora(path, network, spec):
    save_file({"lora_unet_blocks_0.lora_up.weight": torch.zeros(4, 4)}, path)


def write_unknown(path, network, spec):
    save_file({"double_blocks.0.img_attn.qkv.weight": torch.zeros(4, 4)}, path)


def write_vae(path, network, spec):
    keys = ("encoder.conv_in.weight", "encoder.down_blocks.0.resnets.0.conv1.weight", "decoder.conv_in.weight")
    save_file({key: torch.zeros(4, 4) for key in keys}, path)


def write_unet(path, network, spec):
    keys = ("model.diffusion_model.input_blocks.0.0.weight", "first_stage_model.decoder.conv_in.weight")
    save_file({key: torch.zeros(4, 4) for key in keys}, path)


def write_damaged_record(path, network, spec):
    save_file(network.state_dict(), path, metadata={"sparse_model": "{not json"})


def write_unknown_architecture(path, network, spec):
    record = json.loads(to_metadata(spec)["sparse_model"]) | {"architecture": "warp"}
    save_file(network.state_dict(), path, metadata={"sparse_model": json.dumps(record)})


BAD_SAFETENSORS = {
    write_truncated: "not a whole safetensors file",
    write_absurd_header: "not a whole safetensors file",
    write_text: "not a whole safetensors file",
    write_nothing: "not a whole safetensors file",
    write_nan: "blocks.1.attn.qkv.weight holds values that are not finite",
    write_wrong_shape: r"blocks.1.attn.proj.bias has the shape \[3\], expected \[64\]",
    write_missing: "lacks 1 of the .* tensors of a dit network, such as blocks.2.mlp.fc1.weight",
    write_unknown: "known architecture .*dit, maskdit, .* first keys are double_blocks.0.img_attn.qkv.weight",
    write_lora: "this is a LoRA, not a diffusion transformer",
    write_vae: "this is a VAE",
    write_unet: "this is a U-Net",
    write_damaged_record: "metadata is damaged",
    write_unknown_architecture: "architecture 'warp' is unknown",
}


@pytest.mark.parametrize("write", BAD_SAFETENSORS, ids=lambda write: write.__name__)
def test_a_bad_safetensors_file_is_one_sentence(tmp_path, network, spec, write):
    path = tmp_path / "bad.safetensors"
    write(path, network, spec)
    with pytest.raises(CheckpointError, match=f"bad.safetensors: .*{BAD_SAFETENSORS[write]}") as error:
        checkpoint.read(path)
    assert "\n" not in str(error.value)


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"model": Evil()}, tmp_path / "evil.pt")
    (tmp_path / "raw.ckpt").write_bytes(pickle.dumps(Evil()))
    for name in ("evil.pt", "raw.ckpt"):
        with pytest.raises(CheckpointError, match=f"{name}: .*(could run code|not a PyTorch checkpoint)"):
            checkpoint.read(tmp_path / name)
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("content", [b"", b"garbage" * 100, b"PK\x03\x04" + bytes(50)])
def test_a_broken_pickle_is_one_sentence(tmp_path, content):
    (tmp_path / "bad.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match="bad.pt: ") as error:
        checkpoint.read(tmp_path / "bad.pt")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("data", [[1, 2], {"epoch": 3}, {}, {"model": {"a": 1}}])
def test_a_pickle_without_weights_is_one_sentence(tmp_path, data):
    torch.save(data, tmp_path / "bad.pt")
    with pytest.raises(CheckpointError, match="bad.pt: holds"):
        checkpoint.read(tmp_path / "bad.pt")


def test_missing_and_foreign_files(tmp_path):
    with pytest.raises(CheckpointError, match="none.safetensors: there is no such file"):
        checkpoint.read(tmp_path / "none.safetensors")
    (tmp_path / "a.gguf").write_bytes(b"GGUF")
    with pytest.raises(CheckpointError, match="'.gguf' is not a checkpoint format"):
        checkpoint.read(tmp_path / "a.gguf")
