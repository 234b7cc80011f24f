"""The editor's scripts by themselves: how often they ask the host, what they remember, which keys they take."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    if shutil.which("node") is None:
        pytest.skip("the editor's scripts run in node")
    folder = tmp_path_factory.mktemp("editor")
    shutil.copytree(REPOSITORY / "web", folder / "extensions" / "pack", ignore=shutil.ignore_patterns("docs"))
    (folder / "scripts").mkdir()
    for name in ("app", "api"):
        (folder / "scripts" / f"{name}.js").write_text(f"export const {name} = {{}};\n")
    (folder / "package.json").write_text('{"type": "module"}')
    command = ["node", str(Path(__file__).with_name("scripts.mjs")), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_host_that_does_not_answer_is_not_pressed(found: dict[str, Any]) -> None:
    """In six seconds, at a look every 0.3 s."""
    assert found["refused"] == {"TokenRoute": 2, "SparsityScheduler": 2}
    assert found["answered"] == {"TokenRoute": 1, "SparsityScheduler": 1}


def test_labels_are_those_of_the_file_as_it_is(found: dict[str, Any]) -> None:
    """None were known before the file could be read, and others once it was replaced."""
    assert found["none"] == []
    assert found["written"] == ["rocket"]
    assert found["anew"] == ["robot"]


def test_labels_are_suggested_around_a_subgraph(found: dict[str, Any]) -> None:
    """Where the text of a Sparse Class Condition inside is a widget of the subgraph."""
    assert found["promoted"] == ["robot"]
    assert found["promotedInNodes2"] == ["robot"]


def test_a_label_is_told_from_those_beside_it(found: dict[str, Any]) -> None:
    """By commas and line breaks, as the node reads them."""
    assert found["spans"] == ["ro", "ro", "red apple", ""]


def test_enter_that_ends_a_composed_word_picks_nothing(found: dict[str, Any]) -> None:
    assert found["composing"] == []


def test_a_plan_in_a_subgraph_knows_what_is_outside(found: dict[str, Any]) -> None:
    """The checkpoint, a widget's value as it is set outside, and the cfg that a primitive node gives."""
    assert found["outside"] == ["a.safetensors", "SG_FLOPS", 3]
    assert found["open"] is None


def test_what_only_a_run_knows_is_not_guessed(found: dict[str, Any]) -> None:
    """A value that another node makes, and what differs where a subgraph is used twice: there is a model, not known
    which."""
    assert found["later"] == [True, None]
    assert found["twice"] == [None, True, None]


def test_a_subgraph_that_is_used_twice_alike_is_known(found: dict[str, Any]) -> None:
    assert found["alike"] == ["a.safetensors", "SG_FLOPS"]


def test_a_bypassed_node_guides_nothing(found: dict[str, Any]) -> None:
    assert found["bypassed"] is None


def test_a_height_that_shows_every_widget_is_not_kept(found: dict[str, Any]) -> None:
    """The editor's undo brings it back, where a node of a few widgets would stand over its neighbours."""
    assert found["sizes"] == [[360, 375], [360, 0], None]


def test_what_is_pasted_is_folded_at_once(found: dict[str, Any]) -> None:
    """As the widgets of the same values were before, where the editor would note the size of them all for its undo."""
    assert found["unfolded"] == 0 and found["folded"] == [2, 550]
    assert found["again"] == found["folded"]
    assert found["other"] == 0


def test_recommended_steps_stand_beside_a_samplers_cfg(found: dict[str, Any]) -> None:
    assert found["steps"] == ["guided from 0 to 0.6, omega 2 is the omega of Sparse KSampler,", "20 steps recommended"]


def test_a_run_is_told_under_its_own_nodes(found: dict[str, Any]) -> None:
    """Also before the host has said that there is a run, and when its workflow is opened again; not under nodes of the
    same id that another page or another workflow ran, or that stood here before, nor once the run has ended."""
    assert found["heard"] == [["early"], ["early"]]
    assert found["elsewhere"] == []
    assert found["back"] == ["early"] and found["ended"] == []


def test_a_text_comes_back_with_its_workflow(found: dict[str, Any]) -> None:
    """Where a run ended while another one was open, and where an undo made the nodes anew."""
    assert found["reopened"] == [[], ["opened again"]]


def test_a_run_from_before_the_page_was_loaded_again_tells_its_nodes(found: dict[str, Any]) -> None:
    """What was said while no page listened comes from the host's history, where a run that was taken out of the queue
    is not."""
    assert found["reloaded"] == ["said before", "said live", "said while it was loaded"]
