"""The workflows that ship with the pack, in a real host: run from their API form, opened in the real editor."""

import json

import pytest
from editor import Editor
from host import Host
from hosted_files import LOADERS, named_files
from hosts import REPOSITORY
from published import write_files, write_invae
from published_hdm import write_hdm, write_text_encoder
from published_text import write_flux_vae, write_nitro, write_prx, write_prxpixel

API = sorted((REPOSITORY / "workflows" / "api").glob("*.json"))
NAMES = [path.stem for path in API]
BUNDLED = [path for path in API if "icons-" in path.read_text()]
HOSTED = [path for path in API if "TokenRoute" in path.read_text() or "SparseGuidanceSimple" in path.read_text()]
PUBLISHED = [path for path in API if path not in BUNDLED + HOSTED]
GUESTS = {"36 Motif-Video, video from text": "Motif"}
"""Workflows with nodes of another pack, and what their names hold."""


@pytest.fixture(scope="session", autouse=True)
def files(host: Host) -> None:
    """What the workflows of published models ask for, small and of random weights, as its download would lie there."""
    write_files(host)
    models = host.directory / "models"
    write_prx(models, "prx-512-t2i-sft")
    write_prxpixel(models, "prxpixel-t2i")
    write_nitro(models, "Nitro-T-0.6B")
    write_flux_vae(models / "vae" / "ae.safetensors")
    write_invae(models / "vae" / "e2e-invae-hf")
    write_hdm(models / "checkpoints" / "hdm-xut-340M-1024px-note.safetensors")
    write_text_encoder(models / "text_encoders" / "model.safetensors")
    for path in HOSTED:
        for name, value in named_files(path):
            (models / LOADERS[name]).mkdir(parents=True, exist_ok=True)
            (models / LOADERS[name] / value).touch()


def test_every_workflow_has_both_forms_and_a_thumbnail():
    assert len(BUNDLED) >= 5 and len(PUBLISHED) >= 3
    assert NAMES[: len(BUNDLED)] == [path.stem for path in BUNDLED], "what runs at once comes first"
    for suffix in (".json", ".jpg"):
        assert sorted(path.stem for path in (REPOSITORY / "workflows").glob(f"*{suffix}")) == NAMES


@pytest.mark.slow
@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.stem)
def test_it_needs_nothing_but_the_download(host: Host, path):
    """At a smaller size and in fewer steps than the workflow's."""
    workflow = json.loads(path.read_text())
    side = 256 if "SR-DiT" in path.stem else 128  # less is refused there
    for node in workflow.values():
        if node["class_type"] == "EmptySparseLatent":
            node["inputs"] |= {"width": side, "height": side, "batch_size": 1}
        if node["class_type"] in ("KSampler", "SparseKSampler"):
            node["inputs"]["steps"] = 4
    (saved,) = [name for name, node in workflow.items() if node["class_type"] == "SaveImage"]
    pictures = host.run(workflow).pixels(saved)
    assert pictures.shape == (1, side, side, 3) and pictures.std() > 1
    nodes = json.loads((REPOSITORY / "workflows" / path.name).read_text())["nodes"]
    (note,) = [node["widgets_values"][0] for node in nodes if node["type"] == "MarkdownNote"]
    assert "](https://" in note


@pytest.mark.parametrize("path", HOSTED, ids=lambda path: path.stem)
def test_it_fits_the_hosts_own_nodes(host: Host, path):
    """Too large to run here: every node, input, choice and link is one that this host's schemas allow."""
    workflow, schemas = json.loads(path.read_text()), host.object_info()
    kinds = {node["class_type"] for node in workflow.values()}
    four = {"TokenRoute", "SparseGuidance", "SparsityScheduler", "SparseGuidanceReport"}
    assert four <= kinds or "SparseGuidanceSimple" in kinds
    guest = GUESTS.get(path.stem, "no guest")
    for node in workflow.values():
        if guest in node["class_type"]:
            continue
        schema = schemas[node["class_type"]]["input"]
        required, optional = schema.get("required", {}), schema.get("optional", {})
        assert set(required) <= set(node["inputs"]) <= {*required, *optional}, node["class_type"]
        for name, value in node["inputs"].items():
            kind, *more = (required | optional)[name]
            if isinstance(value, list):
                source, place = value
                if guest in workflow[source]["class_type"]:
                    continue
                made = schemas[workflow[source]["class_type"]]["output"][place]
                assert made == kind, (node["class_type"], name)
            elif isinstance(kind, list) or kind == "COMBO":
                choices = kind if isinstance(kind, list) else more[0]["options"]
                assert value in choices, (node["class_type"], name, value)
            else:
                assert type(value).__name__ in {
                    "INT": ("int",), "FLOAT": ("float", "int"), "STRING": ("str",), "BOOLEAN": ("bool",)
                }[kind], (node["class_type"], name, value)  # fmt: skip
    nodes = json.loads((REPOSITORY / "workflows" / path.name).read_text())["nodes"]
    (note,) = [node["widgets_values"][0] for node in nodes if node["type"] == "MarkdownNote"]
    for name, value in named_files(path):
        assert f"[{value}](https://" in note or name == "lora_name", value


@pytest.mark.parametrize("path", BUNDLED, ids=lambda path: path.stem)
def test_it_runs_and_makes_pictures(host: Host, path):
    workflow = json.loads(path.read_text())
    result = host.run(workflow)
    assert result.error is None, result.error
    assert result.seconds < 180  # 6 on an idle core; a busy machine is no fault
    shown = {node: result.pixels(node) for node in result.images}
    sheets = [pictures for node, pictures in shown.items() if workflow[node]["class_type"] == "SparseGuidanceSheet"]
    saved = [pictures for node, pictures in shown.items() if workflow[node]["class_type"] == "SaveImage"]
    assert sheets or saved
    assert len({sheet.tobytes() for sheet in sheets}) == len(sheets), "two sheets are the same"
    for pictures in (*sheets, *saved):
        assert pictures.std() > 20, "the pictures are blank"
    for pictures in saved:
        assert pictures.shape == (4, 256, 256, 3)
        assert len({picture.tobytes() for picture in pictures}) == 4, "the batch holds one picture four times"


@pytest.mark.parametrize("path", API, ids=lambda path: path.stem)
def test_no_node_is_deprecated(host: Host, path):
    schemas = host.object_info()
    kinds = {node["class_type"] for node in json.loads(path.read_text()).values()}
    assert [kind for kind in kinds if schemas.get(kind, {}).get("deprecated")] == []


def test_the_pack_loads_and_its_templates_are_listed(host: Host):
    assert host.load_errors == []
    templates = host.get("/api/workflow_templates").json()
    (pack,) = [names for names in templates.values() if set(NAMES) <= set(names)]
    assert sorted(pack) == NAMES


def test_every_node_has_a_help_page(host: Host):
    nodes = [name for name, info in host.object_info().items() if "sparse-guidance" in info.get("python_module", "")]
    assert len(nodes) >= 9
    for node in nodes:
        assert (REPOSITORY / "web" / "docs" / f"{node}.md").is_file(), node


@pytest.mark.slow
def test_each_opens_in_the_editor_with_nothing_missing_or_red(editor: Editor):
    paths = [path for path in API if path.stem not in GUESTS]
    reports = editor.check([REPOSITORY / "workflows" / path.name for path in paths])
    (listed,) = [names for names in reports[0].templates.values() if set(NAMES) <= set(names)]
    assert listed == NAMES, "the editor lists them by their numbers"
    for path, report in zip(paths, reports, strict=True):
        assert report.problems == [], (path.stem, report.problems)
        saved = json.loads(path.read_text())
        assert editor.opened(report, saved) == {node: entry["inputs"] for node, entry in saved.items()}, path.stem


@pytest.mark.slow
def test_the_picture_of_the_readme_opens_its_graph_when_dropped(editor: Editor):
    (report,) = editor.check([REPOSITORY / "docs" / "side_by_side.png"])
    assert report.problems == []
    wanted = json.loads((REPOSITORY / "workflows" / "api" / "02 CFG burns, Sparse Guidance holds.json").read_text())
    assert {name: node["class_type"] for name, node in report.prompt.items()} == {
        name: node["class_type"] for name, node in wanted.items()
    }
    links = [value for node in wanted.values() for value in node["inputs"].values() if isinstance(value, list)]
    assert report.links == len(links)
