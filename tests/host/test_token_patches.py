"""What other nodes put inside routed blocks: right, or refused by name."""

from pathlib import Path

import pytest
from graphs import write_checkpoint
from hosts import Checkout
from outcomes import Outcomes, known, run_cases

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def inside(checkout: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    folder = tmp_path_factory.mktemp("token-patches")
    write_checkpoint(folder / "tiny.safetensors")
    return run_cases(checkout, Path(__file__).with_name("token_patches.py"), folder)


@pytest.mark.parametrize("speakers", ["one speaker", "two speakers"])
def test_infinite_talk(inside: Outcomes, speakers: str) -> None:
    """Every kept token hears the sound of its own frame; two speakers are told apart by what is left of the first."""
    found = known(inside[speakers])
    assert max(found["errors"]) < 5e-6
    assert found["effect"] > 0.05


def test_a_part_that_cares_where_tokens_stand_is_named(inside: Outcomes) -> None:
    """It gives a result for any number of tokens, and the wrong one."""
    assert inside["ramp"] == (
        "diffusion_model.double_blocks.1.img_mlp cannot work inside a block that drops tokens: its result depends on "
        "where a token stands in the list, which changes when others are left out; take that node out, or let Token "
        "Route route other blocks."
    )
    assert inside["ramp in front of the route"] == "no error"


@pytest.mark.parametrize("kind", ["blurred queries", "weights"])
def test_attention_that_cares_where_tokens_stand_is_named(inside: Outcomes, kind: str) -> None:
    assert f"perturbed by {kind} cannot work inside a block that drops tokens" in known(inside[kind])


@pytest.mark.parametrize("kind", ["values", "mean query", "adapter", "normalized"])
def test_what_treats_tokens_alike_passes(inside: Outcomes, kind: str) -> None:
    """In float32 and in bf16: perturbed attention, smoothed energy, attention to a picture; normalized guidance."""
    assert known(inside[kind]) == "no error"


def test_it_is_asked_once_in_a_run(inside: Outcomes) -> None:
    """One more run of each routed block, over one row of the sparsest branch; none without a reason."""
    found = inside["calls"]
    assert found["alone"] == [[2, 5], [2, 15]] * 3
    assert found["adapter"] == [[1, 5], *found["alone"]]
    assert found["same"]
