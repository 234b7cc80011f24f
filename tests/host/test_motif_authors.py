"""Token routes through Motif-Video of its authors' nodes: MOTIF_PATH names a checkout of ComfyUI-MotifVideo2B, and
GGUF_PATH one of ComfyUI-GGUF. The host's Python needs what these packs need."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from editor import Editor, why_no_editor
from host import Host
from hosts import NO_MOTIF, REPOSITORY, Checkout
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
    shares = {(name, plan): share for name, case in motif.items() for plan, share in case["cost"].items()}
    assert {case: share for case, share in shares.items() if abs(share - 1) > 1e-9} == {}


def test_the_workflow_opens_beside_the_authors_nodes(checkout: Checkout, tmp_path: Path) -> None:
    reason = NO_MOTIF or why_no_editor()
    if reason:
        pytest.skip(reason)
    path = REPOSITORY / "workflows" / "36 Motif-Video, video from text.json"
    (tmp_path / "custom_nodes").mkdir()
    (tmp_path / "custom_nodes" / "ComfyUI-MotifVideo2B").symlink_to(Path(os.environ["MOTIF_PATH"]).resolve())
    for node in json.loads(path.read_text())["nodes"]:
        for file in node["properties"].get("models", []):
            target = tmp_path / "models" / file["directory"] / file["name"]
            target.parent.mkdir(parents=True)
            target.touch()
    saved = json.loads((REPOSITORY / "workflows" / "api" / path.name).read_text())
    with Host(checkout, tmp_path) as host:
        editor = Editor(host)
        (report,) = editor.check([path])
        assert report.problems == []
        assert editor.opened(report, saved) == {name: node["inputs"] for name, node in saved.items()}
