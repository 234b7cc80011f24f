"""Sparse Guidance Match on real hosts."""

from pathlib import Path

import pytest
from graphs import write_checkpoint
from hosts import Checkout
from outcomes import Outcomes, run_cases

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def matching(checkout: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    folder = tmp_path_factory.mktemp("matching")
    write_checkpoint(folder / "tiny.safetensors")
    return run_cases(checkout, Path(__file__).with_name("matching.py"), folder)


@pytest.mark.parametrize("name", ["own", "FLUX.1", "SD3", "Wan 2.1"])
def test_a_rule_that_is_cfg_is_matched_at_cfgs_own_scale(matching: Outcomes, name: str) -> None:
    """And SG on its own gammas: with the plan's shape, and whatever guided the model before."""
    found = matching[name]
    assert found["cfg"] == pytest.approx(3, abs=0.011)
    assert 1 < found["omega"] < 100 and found["schedule"]
    assert found["patched"] == found["omega"]
    assert found["kept"]
    assert f"SG at omega {found['omega']:g} moves the picture as far as CFG at 3. Found in 4 steps, " in found["text"]
    assert " of CFG, in " in found["text"]


def test_the_methods_own_loop_finds_the_same(matching: Outcomes) -> None:
    assert matching["by hand"]["node"] == pytest.approx(matching["by hand"]["loop"], abs=0.011)


def test_an_interrupt_stops_it(matching: Outcomes) -> None:
    assert matching["interrupted"] == {"stopped": True, "steps": 1, "again": True}


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("cfg", "A cfg of 1 is no CFG"),
        ("dense", "The rule ICG cannot be matched to CFG"),
        ("two networks", "The rule AG + SG cannot be matched to CFG"),
        ("negative", "needs a negative conditioning"),
        ("route", "has no token route"),
        ("strong", "lower gamma_strong"),
    ],
)
def test_one_sentence(matching: Outcomes, case: str, words: str) -> None:
    text = matching["sentences"][case]
    assert words in text and "\n" not in text and text[-1] == "."
