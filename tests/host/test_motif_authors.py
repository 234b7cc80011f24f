"""Token routes through Motif-Video of its authors' nodes: MOTIF_PATH names a checkout of ComfyUI-MotifVideo2B, and
GGUF_PATH one of ComfyUI-GGUF. The host's Python needs what these packs need."""

import os
from typing import Any

import pytest
from hosts import NO_MOTIF, Checkout
from test_hosted_models import run_inside


@pytest.fixture(scope="module")
def motif(checkout: Checkout, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Case -> what hosted_models.py found out about it."""
    if NO_MOTIF:
        pytest.skip(NO_MOTIF)
    packs = [os.environ[name] for name in ("MOTIF_PATH", "GGUF_PATH") if os.environ.get(name)]
    return run_inside(checkout, tmp_path_factory.mktemp("motif"), "motif", *packs)


def test_gamma_0_and_removal_are_the_authors_model_bit_for_bit(motif: dict[str, dict[str, Any]]) -> None:
    for name, case in motif.items():
        assert case["gamma 0"] and case["removed"] and case["keys"] and case["finite"], name


def test_every_branch_is_what_the_authors_training_does(motif: dict[str, dict[str, Any]]) -> None:
    """Their own forward takes the same tokens out; strong, weak, another condition, a dropped path, a batch of one."""
    assert {name: case["errors"] for name, case in motif.items() if max(case["errors"].values()) > 5e-6} == {}
    assert [name for name, case in motif.items() if case["effect"] < 0.005] == [], "dropping changes nothing"


def test_half_precision_and_cost(motif: dict[str, dict[str, Any]]) -> None:
    assert [name for name, case in motif.items() if not case["half precision"]] == []
    assert {name: case["cost"] for name, case in motif.items() if abs(case["cost"] - 1) > 1e-9} == {}
