"""Weights with scales: read where one scale serves a tensor or a row, refused by name where it is finer, never ignored;
written with a scale for each row."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from sparse_model.checkpoints.checkpoint import CheckpointError, describe, load, open_checkpoint, read, save
from sparse_model.checkpoints.metadata import RECORD, to_tensor
from sparse_model.checkpoints.quantised import in_int8
from sparse_model.method.schedule import constant
from sparse_model.networks.prx import PRX, PRXConfig

CONFIG = PRXConfig(width=32, depth=8, heads=2, mlp_ratio=2.0, text_width=12)
LAYERS = [f"blocks.{i}.{name}" for i in range(8) for name in ("gate_proj", "up_proj", "attention.img_qkv_proj")]


@pytest.fixture
def state():
    return {key: torch.randn_like(value) for key, value in PRX(CONFIG).state_dict().items()}


def quantised(state: dict, layers: list[str], dtype: torch.dtype, by_row: bool = False) -> tuple[dict, dict, dict]:
    """The weights of `layers` as small numbers, their scales by layer, and what the file as a whole stands for."""
    small, scales, meant = dict(state), {}, dict(state)
    for layer in layers:
        weight = state[f"{layer}.weight"]
        largest = 127 if dtype is torch.int8 else torch.finfo(dtype).max
        scales[layer] = (weight.abs().amax(1, keepdim=True) if by_row else weight.abs().max()) / largest
        exact = weight / scales[layer]
        small[f"{layer}.weight"] = (exact.round() if dtype is torch.int8 else exact).to(dtype)
        meant[f"{layer}.weight"] = small[f"{layer}.weight"].float() * scales[layer]
    return small, scales, meant


def record(name: str, **more) -> torch.Tensor:
    return torch.tensor(list(json.dumps({"format": name, **more}).encode()), dtype=torch.uint8)


def older(scales):
    """ComfyUI's scaled fp8, with the scale of the inputs, which is for products in 8 bits alone."""
    weights = {f"{layer}.scale_weight": scale for layer, scale in scales.items()}
    inputs = {f"{layer}.scale_input": torch.ones(()) for layer in scales}
    return {"scaled_fp8": torch.empty(2, dtype=torch.float8_e4m3fn), **weights, **inputs}


def newer(scales, name="float8_e4m3fn"):
    weights = {f"{layer}.weight_scale": scale for layer, scale in scales.items()}
    return {**weights, **{f"{layer}.comfy_quant": record(name) for layer in scales}}


def photoroom(scales):
    return {f"__prx_internal__.fp8_scale.{layer}.weight": scale.reshape(1) for layer, scale in scales.items()}


def in_metadata(scales):
    return {f"{layer}.weight_scale": scale for layer, scale in scales.items()}


FORMS = {
    "older": (older, torch.float8_e4m3fn),
    "newer": (newer, torch.float8_e4m3fn),
    "newer, e5m2": (lambda scales: newer(scales, "float8_e5m2"), torch.float8_e5m2),
    "newer, int8": (lambda scales: newer(scales, "int8_tensorwise"), torch.int8),
    "in metadata": (in_metadata, torch.float8_e4m3fn),
    "PRXPixel": (photoroom, torch.float8_e4m3fn),
}


def write(path, tensors, scales, form, prefix=""):
    layers = {f"{prefix}{layer}": {"format": "float8_e4m3fn"} for layer in scales}
    metadata = {"_quantization_metadata": json.dumps({"layers": layers})} if form == "in metadata" else None
    tensors = {**tensors, **FORMS[form][0](scales)}
    save_file({prefix + key: value for key, value in tensors.items()}, path, metadata)


@pytest.mark.parametrize("by_row", [False, True])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
def test_scales_are_multiplied_out(tmp_path, state, form, prefix, by_row):
    if (prefix or by_row) and form == "PRXPixel":
        pytest.skip("its keys have no prefix, its tensors one scale each")
    small, scales, meant = quantised(state, LAYERS, FORMS[form][1], by_row)
    path = tmp_path / "prx.safetensors"
    write(path, small, scales, form, prefix)
    network, spec = load(path)
    for key, value in network.state_dict().items():
        torch.testing.assert_close(value, meant[key], rtol=1e-6, atol=0)
    assert spec.text.width == 12
    with open_checkpoint(path) as checkpoint:  # in memory they take the precision that such files were made for
        assert checkpoint.tensors[f"{LAYERS[0]}.weight"].dtype is torch.bfloat16


def test_written_in_int8(tmp_path, state):
    state["blocks.0.gate_proj.weight"][3] = 0  # a row without a scale of its own
    spec, _ = read(_saved(state, tmp_path / "prx.safetensors"))
    save(state, spec, tmp_path / "small.safetensors", torch.int8)
    again, values = read(tmp_path / "small.safetensors")
    assert again == replace(spec, note="") and values.keys() == state.keys()
    for key, value in state.items():
        step = value.abs().amax(-1, keepdim=True) / 127 if value.ndim == 2 else value.abs().max() / 1024
        assert ((values[key].float() - value).abs() <= 0.51 * step + value.abs() / 256).all(), key
    assert not values["blocks.0.gate_proj.weight"][3].any()
    stored = load_file(tmp_path / "small.safetensors")
    matrices = [key for key, value in state.items() if value.ndim == 2 and key.endswith(".weight")]
    assert len(matrices) > 20 and all(stored[key].dtype is torch.int8 for key in matrices)
    assert stored["blocks.0.gate_proj.weight_scale"].shape == (64, 1)
    record = bytes(stored["blocks.0.gate_proj.comfy_quant"].tolist())
    assert json.loads(record) == {"format": "int8_tensorwise"}


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
def test_described_anew_the_tensors_stay_as_they_are(tmp_path, state, prefix):
    """Calibration writes what it found into files of any precision, and beside whatever a host saved with them."""
    path = tmp_path / "prx.safetensors"
    spec, _ = read(_saved(state, path))
    stored = {prefix + key: value for key, value in in_int8(state).items()}
    if prefix:
        stored |= {prefix + RECORD: to_tensor(spec), "first_stage_model.weight": torch.ones(2)}
    save_file(stored, path, {"from": "elsewhere"})
    described = replace(spec, steps=7, schedule=constant(0, 0.5, 2), note="")
    describe(path, described)
    after = load_file(path)
    assert all(torch.equal(after[key], value) for key, value in stored.items() if not key.endswith(RECORD))
    assert after.keys() == stored.keys() and read(path)[0] == described
    with safe_open(path, "pt") as file:
        assert file.metadata()["from"] == "elsewhere"


def _saved(state, path):
    save_file(state, path)
    return path


def test_the_single_file_of_prxpixel_says_its_schedule(tmp_path, state):
    metadata = {
        "prxpixel_scheduler_config": json.dumps({"shift": 2.0, "num_train_timesteps": 1000}),
        "prxpixel_model_info": json.dumps({"noise_scale": 1.5, "default_sample_size": 256}),
    }
    save_file(state, tmp_path / "prx.safetensors", metadata)
    spec, _ = read(tmp_path / "prx.safetensors")
    assert (spec.prediction.shift, spec.prediction.noise_scale, spec.config.input_size) == (2.0, 1.5, 32)


def without_weight(small, scales):
    del small["blocks.0.gate_proj.weight"]
    return {**small, **older(scales)}


def finer_than_rows(small, scales):
    return {**small, **newer(scales), "blocks.0.gate_proj.weight_scale": torch.ones(64, 2)}


def of_whole_weights(small, scales):
    return {**small, **older(scales), "blocks.0.gate_proj.weight": torch.zeros(64, 32)}


def without_scale(small, scales):
    tensors = {**small, **newer(scales)}
    del tensors["blocks.0.gate_proj.weight_scale"]
    return tensors


REFUSED = {
    without_weight: "is a scale, but its tensor blocks.0.gate_proj.weight is not in the file",
    finer_than_rows: "blocks.0.gate_proj.weight is quantised with 128 scales, which are not read",
    of_whole_weights: "blocks.0.gate_proj.weight has a scale but holds numbers of the type float32",
    without_scale: r"blocks.0.gate_proj.weight is quantised \(float8_e4m3fn\) but lacks its scale",
    lambda small, scales: {**small, **newer(scales, "nvfp4")}: r"a form that is not read \(nvfp4\)",
    lambda small, scales: {**small, "blocks.0.gate_proj.weight_scale_inv": torch.ones(1)}: "1 tensors .* does not know",
    lambda small, scales: {**small, "blocks.0.gate_proj.absmax": torch.ones(8)}: "blocks.0.gate_proj.absmax; it may be",
    lambda small, scales: {**small, "lookup": torch.ones(8)}: "does not know, such as lookup",
    lambda small, scales: {
        **small,
        "blocks.0.gate_proj.weight": torch.zeros(64, 32, dtype=torch.int8),
    }: "whole numbers",
}


@pytest.mark.parametrize("change", REFUSED, ids=range(len(REFUSED)))
def test_other_forms_are_refused(tmp_path, state, change):
    small, scales, _ = quantised(state, LAYERS, torch.float8_e4m3fn)
    save_file(change(small, scales), tmp_path / "prx.safetensors")
    with pytest.raises(CheckpointError, match=f"prx.safetensors: .*{REFUSED[change]}"):
        read(tmp_path / "prx.safetensors")


@pytest.mark.parametrize("key", ["num_updates", "optimizer.state.0.exp_avg", "ema.decay", "lr_scheduler.last"])
def test_what_training_leaves_is_left_out(tmp_path, state, key):
    save_file({**state, key: torch.ones(1)}, tmp_path / "prx.safetensors")
    assert read(tmp_path / "prx.safetensors")[1].keys() == state.keys()
