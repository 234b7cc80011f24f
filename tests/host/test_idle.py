"""Runs that come out as if Sparse Guidance, or a part of it, were not there: they say so, and what to do."""

from pathlib import Path

import pytest
from graphs import write_checkpoint
from hosts import Checkout
from outcomes import Outcomes, run_cases

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def idle(checkout: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    folder = tmp_path_factory.mktemp("idle")
    write_checkpoint(folder / "tiny.safetensors")
    return run_cases(checkout, Path(__file__).with_name("idle.py"), folder)


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("simple, 5 steps", "guides from 0.01 to 0.15 of the way, and no step of this run falls there (the nearest are "
         "at 0 and 0.2). Take more steps, or"),
        ("preset", "(the nearest are at 0 and 0.333)"),
        ("between", "guides from 0.4 to 0.41 of the way, and no step of this run falls there (the nearest are at 0.333 "
         "and 0.667)"),
        ("patch", "(the nearest are at 0.333 and 0.667)"),
        ("curve", "from 0.2 to 1 of the way the plan's omega is 1, which is no guidance, at every step of this run"),
    ],
)  # fmt: skip
def test_a_plan_that_no_step_falls_into(idle: Outcomes, case: str, words: str) -> None:
    as_without, (said,) = idle["missed"][case]
    assert as_without
    assert said.startswith("Nothing was guided: ") and words in said


def test_a_rate_of_less_than_a_token(idle: Outcomes) -> None:
    """Of 16."""
    as_without, (said,) = idle["missed"]["rounded"]
    assert as_without and "a gamma_weak of 0.06 leaves out none of the 16 tokens" in said
    assert idle["missed"]["one token"] == [False, []]


def test_a_word_costs_no_picture(idle: Outcomes) -> None:
    assert idle["uncounted"] == {"same": True, "said": []}


def test_a_run_that_begins_behind_the_plan(idle: Outcomes) -> None:
    (said,) = idle["missed"]["late"]
    assert "begins behind that, at 0.7." in said
    assert "raise denoise" in said and "more steps" not in said


def test_what_guides_or_means_not_to_is_left_alone(idle: Outcomes) -> None:
    assert idle["missed"]["simple, 20 steps"] == [False, []]
    assert idle["missed"]["meant"] == [True, []]
    assert idle["missed"]["no strength"] == []


def test_who_took_its_place_is_named(idle: Outcomes) -> None:
    (said,) = [text for text in idle["replaced"]["node"] if text.startswith("The plan had no effect")]
    assert (
        "SkipLayerGuidanceDiTSimple stands behind Sparse Guidance and replaces it; put" in said
        and "or take it out" in said
    )
    (said,) = [text for text in idle["replaced"]["guider"] if text.startswith("The plan had no effect")]
    assert "Guider_DualCFG does not guide" in said


@pytest.mark.parametrize(
    ("way", "words"),
    [("guider", "Sparse Guidance on this model has no effect"), ("patch", "only the last one counts"),
     ("match", "Sparse Guidance on this model has no effect")],
)  # fmt: skip
def test_of_two_plans_one_counts_and_it_is_said(idle: Outcomes, way: str, words: str) -> None:
    found = idle["two plans"][way]
    (said,) = found["said"]
    assert words in said and found["same"] and found["alone"] == []


def test_a_report_times_its_own_plan_without_a_word(idle: Outcomes) -> None:
    assert idle["two plans"]["report"] == []


def test_sizes_that_stock_nodes_divide_by_8(idle: Outcomes) -> None:
    """A latent of this model is its pixels, so that a picture or a region comes out an eighth as wide as was typed."""
    found = idle["stock sizes"]
    (small,), (region,) = found["latent 4"], found["area 32"]
    assert small.startswith("4 x 4 pixels are 1 token; this model was trained at 16 x 16 (16 tokens), so the picture")
    assert region.startswith("The area of a condition is 4 x 4 pixels; this model was trained at 16 x 16, so")
    assert found["latent 72"].startswith("The latent is 9 x 9 but this model cuts it into patches of 4;")
    assert "area of a condition is 5 x 8 but" in found["area 40"]
    for text in (small, region, found["latent 72"], found["area 40"]):
        assert "type 8 times the size there" in text
    assert "(as fractions: of 0.25 and 0.25)." in found["a third"]
    assert found["latent 128"] == found["area 64"] == found["a quarter"] == []


def test_sizes_of_models_of_latents(idle: Outcomes) -> None:
    found = idle["other ratios"]
    assert found["small, sdxl"] is found["small, dcae"] is None
    assert "Stock nodes" not in found["sdxl"]
    assert "type 0.25 times the size there" in found["dcae"]
