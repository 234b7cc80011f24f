"""What the pack's scripts do in the real editor, however it draws nodes: suggestions, and texts after a run."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from editor import Editor
from graphs import write_checkpoint

LABELLED = [{"type": "SparseModelLoader", "pos": [40, 60]}, {"type": "SparseClassCondition", "pos": [450, 60]}]
LINK = [0, "model", 1, "model"]


def plans(folder: Path, **graphs: dict[str, Any]) -> list[Path]:
    paths = [folder / f"{name}.json" for name in graphs]
    for path, graph in zip(paths, graphs.values(), strict=True):
        path.write_text(json.dumps(graph))
    return paths


@pytest.mark.slow
def test_the_list_stays_closed_after_a_label_was_picked(
    editor: Editor, renderer: dict[str, Any], tmp_path: Path
) -> None:
    """Although others begin with it, which are offered until then: rock, and rocket."""
    graph = {"nodes": LABELLED, "links": [LINK]}
    typing = {"typed": "twemoji, rock"}
    paths = plans(
        tmp_path, typed={**graph, "complete": typing}, picked={**graph, "complete": {**typing, "label": "rock"}}
    )
    typed, picked = editor.build(paths, screenshots=tmp_path, **renderer)
    assert typed.choices[0] == "rock" and "rocket" in typed.choices
    assert picked.problems == [] and picked.choices == []
    (labels,) = [node["inputs"]["labels"] for node in picked.prompt.values() if "labels" in node["inputs"]]
    assert labels == "twemoji, rock"


@pytest.mark.slow
def test_labels_are_suggested_around_a_subgraph(editor: Editor, renderer: dict[str, Any], tmp_path: Path) -> None:
    graph = {"nodes": LABELLED, "links": [LINK], "enclose": [1], "promote": "labels", "complete": {"typed": "rock"}}
    (typed,) = editor.build(plans(tmp_path, promoted=graph), screenshots=tmp_path, **renderer)
    assert typed.problems == []
    assert typed.choices[0] == "rock" and "rocket" in typed.choices


@pytest.fixture
def sampled(editor: Editor, tmp_path: Path) -> dict[str, Any]:
    """A graph to run, from a file that no run has read yet: the host says nothing of what it keeps."""
    rest = [("EmptySparseLatent", 450, 300), ("SparseKSampler", 860, 60), ("VAEDecode", 1240, 60)]
    nodes = LABELLED + [{"type": kind, "pos": [x, y]} for kind, x, y in [*rest, ("PreviewImage", 1240, 180)]]
    nodes += [{"type": kind, "pos": [x, 700]} for kind, x in [("SparsityScheduler", 40), ("SparseGuidanceReport", 450)]]
    links = [
        LINK, [0, "model", 2, "model"], [0, "model", 3, "model"], [1, "conditioning", 3, "positive"],
        [2, "latent", 3, "latent_image"], [3, "latent", 4, "samples"], [0, "vae", 4, "vae"], [4, "IMAGE", 5, "images"],
        [0, "model", 6, "model"], [0, "model", 7, "model"], [6, "sparsity", 7, "sparsity"], [2, "latent", 7, "latent"],
    ]  # fmt: skip
    file = f"{tmp_path.name}.safetensors"
    (editor.host.directory / "models" / "diffusion_models").mkdir(parents=True, exist_ok=True)
    write_checkpoint(editor.host.directory / "models" / "diffusion_models" / file)
    return {"nodes": nodes, "links": links, "run": True, "values": [[0, "model_name", file]]}


@pytest.mark.slow
def test_nodes_say_what_they_did(
    editor: Editor, renderer: dict[str, Any], sampled: dict[str, Any], tmp_path: Path
) -> None:
    """After a run: the loader what it loaded, the condition what it read, the sampler what it cost; after one that
    fails, the node that failed says why."""
    model, label = sampled["values"][0], [1, "labels", "twemoji, rocket"]
    paths = plans(
        tmp_path,
        done={**sampled, "values": [model, label, [3, "steps", 4]]},
        failed={**sampled, "values": [model, [1, "labels", "nonsense"]]},
    )
    done, failed = editor.build(paths, screenshots=tmp_path, **renderer)
    assert done.problems == []
    for text in (
        r"4 layers of width 32",
        r"rocket \(1\), twemoji \(1\)",
        r"\d+% of the work of CFG, .* 4 steps",
        r"(?m)^1-20 +0\.250 +12 ",
    ):
        assert [said for said in done.said if re.search(text, said)], (text, done.said)
    assert [said for said in failed.said if "'nonsense' is not a label" in said], failed.said


@pytest.mark.slow
def test_a_run_says_nothing_under_another_graph(editor: Editor, sampled: dict[str, Any], tmp_path: Path) -> None:
    """Although its nodes have the same ids and kinds, as those of two copies of a template have."""
    values = [*sampled["values"], [1, "labels", "twemoji, rocket"], [3, "steps", 1000]]
    (left,) = editor.build(plans(tmp_path, left={**sampled, "leave": True, "values": values}), screenshots=tmp_path)
    assert left.problems == []
    assert left.said == []


@pytest.mark.slow
def test_a_run_tells_its_nodes_after_the_page_was_loaded_again(
    editor: Editor, renderer: dict[str, Any], sampled: dict[str, Any], tmp_path: Path
) -> None:
    """The sampler what it cost, and the report its table."""
    values = [*sampled["values"], [1, "labels", "twemoji, rocket"], [3, "steps", 4]]
    graph = {**sampled, "reload": True, "values": values}
    (report,) = editor.build(plans(tmp_path, reloaded=graph), screenshots=tmp_path, **renderer)
    for text in (r"of the work of CFG, .* 4 steps", r"(?m)^1-20 +0\.250 +12 "):
        assert [said for said in report.said if re.search(text, said)], (text, report.said)


@pytest.mark.slow
def test_what_nodes_said_is_no_change_of_the_graph(
    editor: Editor, renderer: dict[str, Any], sampled: dict[str, Any], tmp_path: Path
) -> None:
    """The editor notes nothing for its undo. An undo makes every node anew, leaves the texts, and can be redone."""
    nodes = [*sampled["nodes"][:4], {"type": "SaveLatent", "pos": [1240, 60]}]  # an image would be a change
    links = [*sampled["links"][:5], [3, "latent", 4, "samples"]]
    values = [*sampled["values"], [1, "labels", "twemoji, rocket"], [3, "steps", 4]]
    values += [[3, "control_after_generate", "fixed"]]
    graph = {"nodes": nodes, "links": links, "run": True, "undo": True, "values": values}
    (report,) = editor.build(plans(tmp_path, undone=graph), screenshots=tmp_path, **renderer)
    assert report.problems == []
    for text in (r"4 layers of width 32", r"rocket \(1\)", r"of the work of CFG, .* 4 steps"):
        assert [said for said in report.said if re.search(text, said)], (text, report.said)


@pytest.mark.slow
def test_a_plan_in_a_subgraph_is_drawn(editor: Editor, renderer: dict[str, Any], tmp_path: Path) -> None:
    """As the file of the model outside recommends it, before any run."""
    nodes = [{"type": "SparseModelLoader", "pos": [40, 60]}, {"type": "SparsityScheduler", "pos": [450, 60]}]
    (report,) = editor.build(
        plans(tmp_path, inside={"nodes": nodes, "links": [LINK], "enclose": [1]}), screenshots=tmp_path, **renderer
    )
    assert report.problems == []
    assert report.curves == 3


@pytest.mark.slow
def test_our_nodes_are_offered_for_a_link_that_is_dropped(
    editor: Editor, renderer: dict[str, Any], tmp_path: Path
) -> None:
    """Behind the editor's own, and connected once one is chosen."""
    patch = [{"type": "ModelSamplingSD3", "pos": [40, 60]}]
    sampler = [{"type": "SamplerCustomAdvanced", "pos": [40, 60]}]
    ours = ["SparseKSampler", "SparseGuidance", "SparseGuidanceSimple", "TokenRoute"]
    paths = plans(
        tmp_path,
        behind={"nodes": patch, "links": [], "drop": [0, "outputs", "MODEL", "TokenRoute"]},
        before={"nodes": sampler, "links": [], "drop": [0, "inputs", "guider", "SparseGuider"]},
    )
    settings = {**renderer, "Comfy_LinkRelease_Action": "context menu"}
    behind, before = editor.build(paths, screenshots=tmp_path, **settings)
    assert behind.problems == [] and before.problems == []
    assert "KSampler" in behind.offered and behind.offered[-4:] == ours
    assert "CFGGuider" in before.offered and before.offered[-1] == "SparseGuider"
    for report, added in ((behind, "TokenRoute"), (before, "SparseGuider")):
        assert added in [node["type"] for node in report.nodes] and report.links == 1
