"""The workflows that ship with the pack, in a real host: run from their API form, opened in the real editor."""

import json

import pytest
from editor import Editor
from host import Host
from hosts import REPOSITORY

API = sorted((REPOSITORY / "workflows" / "api").glob("*.json"))
NAMES = [path.stem for path in API]


def test_every_workflow_has_both_forms_and_a_thumbnail():
    assert len(API) >= 5
    for suffix in (".json", ".jpg"):
        assert sorted(path.stem for path in (REPOSITORY / "workflows").glob(f"*{suffix}")) == NAMES


@pytest.mark.parametrize("path", API, ids=NAMES)
def test_it_runs_and_makes_pictures(host: Host, path):
    result = host.run(json.loads(path.read_text()))
    assert result.error is None, result.error
    assert result.seconds < 60
    saved = [node for node, node_images in result.images.items() if len(node_images) == 4]
    assert saved
    for node in saved:
        pictures = result.pixels(node)
        assert pictures.shape == (4, 256, 256, 3)
        assert pictures.std() > 20, "the pictures are blank"
        assert len({picture.tobytes() for picture in pictures}) == 4, "the batch holds one picture four times"


def test_the_pack_loads_and_its_templates_are_listed(host: Host):
    assert host.load_errors == []
    templates = host.get("/api/workflow_templates").json()
    (pack,) = [names for names in templates.values() if set(NAMES) <= set(names)]
    assert sorted(pack) == NAMES


def test_every_node_has_a_help_page(host: Host):
    nodes = [name for name, info in host.object_info().items() if "sparse-guidance" in info.get("python_module", "")]
    assert len(nodes) == 7
    for node in nodes:
        assert (REPOSITORY / "web" / "docs" / f"{node}.md").is_file(), node


def test_each_opens_in_the_editor_with_nothing_missing_or_red(editor: Editor):
    reports = editor.check([REPOSITORY / "workflows" / f"{name}.json" for name in NAMES])
    for path, report in zip(API, reports, strict=True):
        assert report.problems == [], (path.stem, report.problems)
        wanted = {node: entry["inputs"] for node, entry in json.loads(path.read_text()).items()}
        assert {node: entry["inputs"] for node, entry in report.prompt.items()} == wanted, path.stem
