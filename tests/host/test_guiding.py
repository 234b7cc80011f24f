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
