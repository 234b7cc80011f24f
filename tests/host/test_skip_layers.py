"""SG beside CFG against the host's skip-layer nodes, on its own transformers, small and random."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hosts import REPOSITORY, Checkout, version_key

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def found(checkout: Checkout, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What skip_layers.py prints."""
    command = [checkout.python, Path(__file__).with_name("skip_layers.py"), checkout.root, REPOSITORY]
    result = subprocess.run(
        command, cwd=tmp_path_factory.mktemp("skip"), env=checkout.environment, capture_output=True, text=True,
        timeout=600, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-4000:]
    return json.loads(result.stdout.splitlines()[-1])


def test_the_whole_route_dropped_is_skip_layer_guidance(checkout: Checkout, found: dict[str, Any]) -> None:
    """Both of the host's nodes, CFG and cfg 1, with and without a negative, for every family whose layers they skip."""
    families = found["families"]
    assert {"FLUX.1", "SD3.5 medium", "Wan 2.1", "Qwen-Image"} <= families.keys()
    assert len(families) >= (16 if version_key(checkout.version) > (0, 4) else 11)
    assert "one node" in families["FLUX.1"] and "one node" in families["Wan 2.1"]
    for name, errors in families.items():
        assert errors.pop("effect") > 0.01, name
        assert len(errors) >= 6 and max(errors.values()) < 2e-5, (name, errors)


def test_three_branches_are_three_separate_runs(found: dict[str, Any]) -> None:
    for name, errors in found["branches"].items():
        assert len(errors) == 2 and max(errors.values()) < 1e-5, (name, errors)


def test_a_sheet_of_a_model_without_a_route(found: dict[str, Any]) -> None:
    """No guidance, the one node's route, and a longer one, without any negative."""
    sheet = found["sheet"]
    assert sheet["pictures"] == 3 and max(sheet["errors"]) < 1e-5
    assert sheet["costs"][0] == 1 < min(sheet["costs"][1:])
    assert "connect one as negative" in sheet["refused"]


def test_patches_of_cfg_see_its_own_pair(found: dict[str, Any]) -> None:
    assert found["patches"]["calls"] == 2 and found["patches"]["pair"] < 1e-5
