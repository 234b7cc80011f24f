"""Numbers between the host and a network: combined labels, and weights in several precisions."""

from pathlib import Path

import pytest
from graphs import write_checkpoint
from hosts import Checkout
from outcomes import Outcomes, run_cases

from sparse_model.checkpoints.spec import ModelSpec
from sparse_model.conditions.text import TextSpec
from sparse_model.method.prediction import Flow
from sparse_model.method.sparsity import Route, Sparsity
from sparse_model.networks.xut import XUTConfig

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def found(checkout: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    """What precision.py finds."""
    folder = tmp_path_factory.mktemp("precision")
    write_checkpoint(folder / "tiny.safetensors")
    sizes = XUTConfig(8, width=32, heads=2, hidden=48, text_width=12, levels=1, after=1)
    text = TextSpec("qwen3-0.6b", 12, 5, padded=False)
    write_checkpoint(
        folder / "xut.safetensors",
        ModelSpec("xut", sizes, Flow(), Sparsity((Route(1, 1),)), latent="eq-sdxl", text=text),
    )
    return run_cases(checkout, Path(__file__).with_name("precision.py"), folder)


def test_concatenated_labels_keep_the_sign_of_their_weights(found: Outcomes) -> None:
    assert len(found["labels"]) == 5 and max(found["labels"]) < 1e-5


def test_the_host_moves_weights_in_the_precision_that_they_are_kept_in(found: Outcomes) -> None:
    """Its dynamic offloading casts to what it has noted, else frequencies would be rounded after all."""
    assert found["noted"]["kinds"] == ["torch.float16", "torch.float32", "torch.float8_e4m3fn"]
    assert not found["noted"]["differ"]
