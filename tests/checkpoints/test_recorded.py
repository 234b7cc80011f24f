"""Routes in the metadata of files that are no models."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sparse_model.checkpoints.checkpoint import CheckpointError
from sparse_model.checkpoints.recorded import recorded_route
from sparse_model.method.sparsity import Route

ROUTES = {"routes": [{"start_layer_idx": 2, "end_layer_idx": -3, "selection_ratio": 0.25}]}


def lora(folder: Path, **metadata: str) -> Path:
    path = folder / "lora.safetensors"
    save_file({"blocks.0.lora_up.weight": torch.zeros(2, 2)}, path, metadata=metadata)
    return path


@pytest.mark.parametrize(
    "metadata",
    [
        {"sparse_model": json.dumps({"sparsity": ROUTES})},
        {"tread_config": json.dumps(ROUTES)},
        {"tread_config": str(ROUTES)},
        {"tread_config": json.dumps({"tread_config": ROUTES}), "format": "pt"},
    ],
)
def test_a_route_is_read(tmp_path: Path, metadata: dict[str, str]) -> None:
    assert recorded_route(lora(tmp_path, **metadata)).routes == (Route(2, -3, 0.25),)


def test_most_files_have_none(tmp_path: Path) -> None:
    assert recorded_route(lora(tmp_path, format="pt", ss_network_dim="8")) is None
    (tmp_path / "lora.pt").write_bytes(b"")
    assert recorded_route(tmp_path / "lora.pt") is None


@pytest.mark.parametrize("value", ["", "[" * 100_000, '{"sparsity": 3}', "{}", '{"sparsity": {"routes": [3]}}'])
@pytest.mark.parametrize("key", ["sparse_model", "tread_config"])
def test_a_damaged_record_is_one_sentence(tmp_path: Path, key: str, value: str) -> None:
    with pytest.raises(CheckpointError, match=rf"lora.safetensors.*its '{key}' metadata holds no route") as caught:
        recorded_route(lora(tmp_path, **{key: value}))
    assert "\n" not in str(caught.value)


def test_a_damaged_file_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "lora.safetensors"
    path.write_bytes(b"\xff" * 40)
    with pytest.raises(CheckpointError, match=r"lora\.safetensors"):
        recorded_route(path)
