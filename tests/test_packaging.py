"""What the registry and Manager read: one version, one list of dependencies, and workflows that name the pack."""

import json
import re
import subprocess
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
LARGEST = 48_000_000
"""Bytes of all files together: what everybody downloads who clones the pack."""
tomllib = pytest.importorskip("tomllib", reason="Python 3.11 reads TOML")


@pytest.fixture(scope="module")
def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_dependencies_are_those_of_requirements_txt(project):
    lines = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if not line.startswith("#")]
    assert [line for line in lines if not line.startswith("torch>")] == project["dependencies"]
    assert len(lines) == len(project["dependencies"]) + 1
    assert all(re.fullmatch(r"[a-z]+>=[\d.]+", line) for line in lines), "lower bounds only"


def test_the_changelog_begins_with_this_version(project):
    first = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert first[1] == project["version"]


@pytest.mark.parametrize("path", sorted((ROOT / "workflows").glob("*.json")), ids=lambda path: path.stem)
def test_workflows_name_the_pack_and_its_version(project, path):
    """So that the editor offers to install it where it is missing."""
    ours = [
        node
        for node in json.loads(path.read_text())["nodes"]
        if re.match(r"Spars|TokenRoute|EmptySparse", node["type"])
    ]
    assert ours
    for node in ours:
        named = (node["properties"].get("cnr_id"), node["properties"].get("ver"))
        assert named == (project["name"], project["version"]), node["type"]


def test_the_picture_of_the_readme_holds_its_graph():
    """Dropped into the editor it opens the workflow that it shows."""
    picture = Image.open(ROOT / "docs" / "side_by_side.png")
    shown = json.loads(picture.text["workflow"])
    assert shown == json.loads((ROOT / "workflows" / "02 CFG burns, Sparse Guidance holds.json").read_text())


def test_sources_are_ascii():
    """Editors, consoles and testers of other code pages read every line of them; strings hold the rest as escapes."""
    folders = ("nodes", "sparse_model", "web", "benchmarks", "tests")
    paths = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.suffix in (".py", ".js", ".mjs")]
    assert len(paths) > 100
    assert [path.name for path in paths if not path.read_bytes().isascii()] == []


def test_the_working_tree_is_small():
    """Checkpoints, pictures and recorded results are in it: the largest are named where it has grown too large."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    sizes = {name: (ROOT / name).lstat().st_size for name in listed.stdout.split("\0") if (ROOT / name).is_file()}
    assert len(sizes) > 500
    assert sum(sizes.values()) < LARGEST, sorted(sizes, key=sizes.get)[-5:]
