"""Token routes through the host's own transformers, built small with random weights in the host's Python."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hosts import REPOSITORY, Checkout, version_key

NEW = {"FLUX.2", "Z-Image", "Anima"}
"""Families that 0.3.64 does not have."""


@pytest.fixture(scope="session")
def families(checkout: Checkout, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Case -> what hosted_models.py found out about it."""
    script = Path(__file__).with_name("hosted_models.py")
    result = subprocess.run(
        [checkout.python, script, checkout.root, REPOSITORY],
        cwd=tmp_path_factory.mktemp("hosted"),
        env=checkout.environment,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-4000:]
    cases = json.loads(result.stdout.splitlines()[-1])
    failed = {name: case["error"] for name, case in cases.items() if case and "error" in case}
    assert not failed, "\n".join(f"{name}: {error}" for name, error in failed.items())
    missing = {name for name, case in cases.items() if case is None and "," not in name}
    assert missing == (NEW if version_key(checkout.version) < (0, 4) else set())
    return {name: case for name, case in cases.items() if case is not None}


def wrong(cases: dict[str, dict[str, Any]], what: str) -> list[str]:
    return [name for name, case in cases.items() if not case[what]]


def test_nothing_dropped_is_the_host_bit_for_bit(families: dict[str, dict[str, Any]]) -> None:
    assert len(families) > 30
    assert wrong(families, "gamma 0") == []


def test_a_model_samples_the_same_without_the_node_again(families: dict[str, dict[str, Any]]) -> None:
    assert wrong(families, "removed") == []


def test_names_of_weights_stay(families: dict[str, dict[str, Any]]) -> None:
    assert wrong(families, "keys") == []


def test_dropped_tokens_are_as_if_hidden_and_put_back(families: dict[str, dict[str, Any]]) -> None:
    """Strong, weak, dense beside sparse, another condition, the whole path dropped, a batch of one."""
    assert wrong(families, "finite") == []
    assert [name for name, case in families.items() if case["effect"] < 0.05] == [], "dropping changes nothing"
    assert {name: case["errors"] for name, case in families.items() if max(case["errors"].values()) > 2e-6} == {}
