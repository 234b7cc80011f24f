"""One name for one file: in the workflows' notes, in what the editor offers, in the README and in docs/models.md."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / "workflows").glob("*.json"))
LINK = re.compile(r"\[([^\]]+)\]\((https://[^)]+)\)")
OFFERED = "https://huggingface.co/"
"""Where the editor downloads from."""
OURS = ("SparseModelLoader", "SparseCheckpointLoader")
"""Loaders of models that docs/models.md describes; the others load the host's own."""


def nodes_of(path: Path) -> list[dict]:
    return json.loads(path.read_text())["nodes"]


def note_of(path: Path) -> str:
    (note,) = [node["widgets_values"][0] for node in nodes_of(path) if node["type"] == "MarkdownNote"]
    return note


def is_file(url: str) -> bool:
    return "/resolve/" in url


def missing(note: str, offered: dict[str, str], chosen: set[str]) -> list[str]:
    """What differs: note is Markdown, offered maps names to addresses, chosen are the names in the loaders' widgets."""
    linked = {url for _, url in LINK.findall(note)}
    wrong = [f"{name}: the note does not link {url}" for name, url in offered.items() if url not in linked]
    wrong += [f"{name} is offered, and no loader has it chosen" for name in offered.keys() - chosen]
    wrong += [
        f"{name} is chosen and linked, but not offered"
        for name, url in LINK.findall(note)
        if name in chosen and url.startswith(OFFERED) and is_file(url) and name not in offered
    ]
    return wrong


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_the_note_links_what_the_editor_offers(path):
    nodes = nodes_of(path)
    offered = {model["name"]: model["url"] for node in nodes for model in node["properties"].get("models", [])}
    chosen = {value for node in nodes for value in node.get("widgets_values", []) if isinstance(value, str)}
    assert missing(note_of(path), offered, chosen) == []


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_the_table_of_models_links_what_the_note_of_ours_links(path):
    if not any(node["type"] in OURS for node in nodes_of(path)):
        pytest.skip("the host's own models")
    table = (ROOT / "docs" / "models.md").read_text()
    for _, url in LINK.findall(note_of(path)):
        assert url.removesuffix("/tree/main") in table, url


def test_a_difference_is_found():
    """What the first test is worth: one letter of a name or an address, or a file left out."""
    url = OFFERED + "a/b/resolve/main/c.safetensors"
    note, offered = f"[c.safetensors]({url})", {"c.safetensors": url}
    assert missing(note, offered, {"c.safetensors"}) == []
    assert missing(note.replace("/b/", "/d/"), offered, {"c.safetensors"}) != []
    assert missing(note, offered, {"d.safetensors"}) != []
    assert missing(note, {}, {"c.safetensors"}) != []


def test_the_readme_numbers_the_templates():
    """Its table names each template once, by the number that its title begins with."""
    table = (ROOT / "README.md").read_text().split("## Which model do I need?")[1].split("\n## ")[0]
    named = set()
    for first, last in re.findall(r"\| (\d\d)(?: to (\d\d))? \|$", table, re.MULTILINE):
        named |= set(range(int(first), int(last or first) + 1))
    assert named == {int(path.stem[:2]) for path in WORKFLOWS if path.stem[:2].isdigit()}
