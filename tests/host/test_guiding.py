"""Guided runs beside what the host and other nodes do in the same sampling."""

from pathlib import Path

import pytest
from graphs import write_checkpoint
from hosts import Checkout
from outcomes import Outcomes, run_cases

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def guiding(checkout: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    folder = tmp_path_factory.mktemp("guiding")
    write_checkpoint(folder / "tiny.safetensors")
    return run_cases(checkout, Path(__file__).with_name("guiding.py"), folder)


def test_another_nodes_hook_gets_the_pair_of_cfg(guiding: Outcomes) -> None:
    """Hooks expect two conditions, as the host passes them; SG beside CFG has a third branch, and a look has more."""
    found = guiding["skip layers"]
    assert min(found["effect"], found["pull"]) > 0.01
    assert max(found["patch"], found["guider"]) < 1e-5
    assert 1 < found["matched"] < 100


@pytest.mark.parametrize(
    ("case", "guided", "evaluations"),
    [("simple", 6, 10), ("denoise", 0, 10), ("karras", 2, 10), ("heun", 11, 19), ("split", 3, 4)],
)
def test_the_line_under_the_node_is_what_ran(guiding: Outcomes, case: str, guided: int, evaluations: int) -> None:
    """The share of CFG in which half of progress is guided, at the noise levels that the sampler went through."""
    for told in guiding[case]:
        assert [told["rows"].count(2), len(told["rows"])] == [guided, evaluations]
        assert told["line"].startswith(f"Sparse Guidance: {told['share']} of the work of CFG, ")
        steps = 4 if case == "split" else 10
        more = f", {evaluations} evaluations" if evaluations != steps else ""
        assert told["line"].endswith(f" s per step, {steps} steps{more}.")


def test_an_interrupted_run_says_nothing(guiding: Outcomes) -> None:
    assert guiding["interrupted"] == []


def test_a_weak_model_is_told_of_the_same_latent(guiding: Outcomes) -> None:
    """[Equal to the model's, equal to the one that came in]: SD3 shifts and scales a latent, but not an empty one. And
    of the same shapes, where the host tells them."""
    assert guiding["latent of a weak model"] == {"image": [True, False], "empty": [True, True], "shapes": True}


def test_no_negative_is_no_branch(guiding: Outcomes) -> None:
    """Two predictions in each of two steps, whether or not a patch wants a negative's."""
    assert guiding["no negative"] == {"rows": [2, 2, 2, 2], "equal": True}


def test_steps_that_differ_in_omega_alone_are_counted_once(guiding: Outcomes) -> None:
    assert guiding["counted once"] == {"counted": 1, "omegas": 50}


def test_a_sheet_tells_the_cost_of_what_ran(guiding: Outcomes) -> None:
    cost, strong = guiding["sheet"]
    assert cost == pytest.approx(strong) and cost < 1
