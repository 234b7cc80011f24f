"""What no artist means, and what the host's own nodes make of a model of this pack: right, or one sentence."""

from pathlib import Path

import pytest
from graphs import write_checkpoint
from hosts import Checkout
from outcomes import Outcomes, run_cases
from test_inside import FAMILIES

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def hostile(checkout: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    folder = tmp_path_factory.mktemp("hostile")
    write_checkpoint(folder / "tiny.safetensors")
    write_checkpoint(folder / "other.safetensors", seed=3)
    for name in ("prx", "xut"):
        write_checkpoint(folder / f"family-{name}.safetensors", FAMILIES[name])
    return run_cases(checkout, Path(__file__).with_name("hostile.py"), folder)


@pytest.mark.parametrize("name", ["tiny", "family-prx", "family-xut"])
def test_what_the_hosts_save_nodes_write_is_the_same_model(hostile: Outcomes, name: str) -> None:
    """They keep no metadata: without it a model of pixels was taken for one of latents, and drew noise."""
    found = hostile[f"saved {name}"]
    assert found["alone"] and all(found.values())


def test_merged_models(hostile: Outcomes) -> None:
    assert hostile["merged"] == {"between": True, "same": True}


@pytest.mark.parametrize("case", ["LoRA", "bundles"])
def test_damaged_files_are_named(hostile: Outcomes, case: str) -> None:
    for name, text in hostile[case].items():
        assert name in text and text.isprintable() and text[-1] == "." and len(text) < 300, text


def test_runs_that_no_sampler_plans(hostile: Outcomes) -> None:
    assert {tuple(shape) for shape in hostile["runs"]["shapes"].values()} == {(2, 3, 16, 16)}
    masks = hostile["runs"]["masks"]
    assert {name for name, text in masks.items() if text.startswith("The mask is empty (")} == {
        "none", "no height", "numbers",
    }  # fmt: skip
    assert {masks[name] for name in ("nan", "batch", "channels")} == {"no error"}


def test_two_routes_on_one_loaded_model(hostile: Outcomes) -> None:
    assert all(hostile["together"].values()), hostile["together"]


def test_other_precisions(hostile: Outcomes) -> None:
    assert hostile["precisions"] == {"fp8": True, "fp16": True}


def test_a_layer_that_cannot_be_chosen(hostile: Outcomes) -> None:
    (said,) = hostile["clip skip"]
    assert said.startswith("Sparse Guidance: CLIP Set Last Layer has no effect")


def test_cameras_are_numbers(hostile: Outcomes) -> None:
    assert all("must be numbers, not " in text for text in hostile["cameras"].values())


def test_the_editor_is_answered(hostile: Outcomes) -> None:
    """Nonsense gets sentences of a line, not the megabyte that was asked, nor Python's words."""
    assert len(hostile["plans"]) > 20
    for text in hostile["plans"]:
        assert text.isprintable() and len(text) <= 400, text
        assert not any(word in text for word in ("object", "codec", "convert", "NoneType", "embedded")), text


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("endless", "This sheet has 9999600006 pictures, which would take about"),
        ("large", "A sheet of 9000 pictures of 2048 pixels is too large for memory; use a picture_size of 172 or less"),
        ("letters", "\u2026: this is not a number."),
        ("steps", "there must be at least 1 step, and at most 10000"),
        ("numbers", "omega nan: this is not a number"),
        ("routes", "this is not a whole number."),
    ],
)
def test_a_sheet_is_refused_before_it_is_begun(hostile: Outcomes, case: str, words: str) -> None:
    text = hostile["sheets"][case]
    assert words in text and len(text) < 400
