"""Numbers between the host and a network: combined labels."""

from pathlib import Path

import pytest
from graphs import write_checkpoint
from hosts import Checkout
from outcomes import Outcomes, run_cases


pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def found(checkout: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    """What precision.py finds."""
    folder = tmp_path_factory.mktemp("precision")
    write_checkpoint(folder / "tiny.safetensors")
    return run_cases(checkout, Path(__file__).with_name("precision.py"), folder)


def test_concatenated_labels_keep_the_sign_of_their_weights(found: Outcomes) -> None:
    assert len(found["labels"]) == 5 and max(found["labels"]) < 1e-5
