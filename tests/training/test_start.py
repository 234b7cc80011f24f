"""A run that begins with a smaller network's weights draws at first what that one draws, enlarged."""

from dataclasses import replace

import pytest
import torch

from sparse_model.checkpoints.bundled import BUNDLED
from sparse_model.checkpoints.checkpoint import build, save
from sparse_model.checkpoints.spec import ModelSpec
from sparse_model.method.prediction import Flow
from sparse_model.method.sparsity import Route, Sparsity
from sparse_model.networks.dit import DiTConfig
from sparse_model.networks.maskdit import MaskDiTConfig
from sparse_model.training.config import TrainConfig
from sparse_model.training.data import Pictures
from sparse_model.training.loop import Run
from sparse_model.training.start import bundled, start_from

SMALL = ModelSpec(
    "dit", DiTConfig(8, 2, 3, 32, 2, 2, 2.0, num_classes=3), Flow("data"), Sparsity((Route(1, 1, 0.5),)),
    ("fox", "owl", "red"), latent="pixels",
)  # fmt: skip
LARGE = replace(SMALL, config=DiTConfig(16, 4, 3, 32, 2, 2, 2.0, num_classes=3), labels=("blue", "red", "fox"))


def filled(spec, seed):
    network = build(spec)
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        parameter.data.normal_(std=0.1, generator=generator)
    return network.requires_grad_(False)


@pytest.fixture
def small(tmp_path):
    network = filled(SMALL, 0)
    save(network.state_dict(), SMALL, tmp_path / "small.safetensors")
    return network


def test_it_draws_the_smaller_picture_enlarged(small, tmp_path):
    large = filled(LARGE, 1)
    start_from(large, LARGE.labels, tmp_path / "small.safetensors")
    x, t = torch.randn(2, 3, 16, 16), torch.tensor([0.2, 0.9])
    red_fox = large(x, t, torch.tensor([[0.0, 1.0, 1.0], [0.0, 0.0, 0.0]]))
    pixels = torch.nn.functional.avg_pool2d(x, 2)
    expected = small(pixels, t, torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]]))
    enlarged = expected.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    torch.testing.assert_close(red_fox, enlarged, rtol=1e-4, atol=1e-5)


def test_a_network_of_the_same_size_goes_on_from_an_exported_one(small, tmp_path):
    again = filled(SMALL, 1)
    start_from(again, SMALL.labels, tmp_path / "small.safetensors")
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), small.parameters(), strict=True))


def test_a_label_that_is_new_stays_as_it_was(small, tmp_path):
    large = filled(LARGE, 1)
    before = large.y_embedder.embedding_table.weight.clone()
    start_from(large, LARGE.labels, tmp_path / "small.safetensors")
    after = large.y_embedder.embedding_table.weight
    assert torch.equal(after[0], before[0])
    assert torch.equal(after[1:], small.y_embedder.embedding_table.weight[[2, 0, 3]])


@pytest.mark.parametrize("changes", [{"patch_size": 3, "input_size": 12}, {"width": 64}, {"input_size": 32}])
def test_a_network_of_another_kind_is_refused(small, tmp_path, changes):
    large = filled(replace(LARGE, config=replace(LARGE.config, **changes)), 1)
    with pytest.raises(ValueError, match=r"small.safetensors' does not fit: DiTConfig"):
        start_from(large, LARGE.labels, tmp_path / "small.safetensors")


def test_only_a_dit_can_be_started(tmp_path):
    """A MaskDiT's table of labels lies the other way round: its rows are no labels."""
    config = MaskDiTConfig(8, 2, 3, 32, 2, 2, num_classes=3, decoder_width=32, decoder_depth=1, decoder_heads=2)
    masked = replace(SMALL, architecture="maskdit", config=config, sparsity=Sparsity(mask=0.5))
    save(filled(masked, 0).state_dict(), masked, tmp_path / "masked.safetensors")
    with pytest.raises(ValueError, match=r"only a DiT can start from '.*masked.safetensors'"):
        start_from(filled(masked, 1), masked.labels, tmp_path / "masked.safetensors")


def test_a_run_begins_with_it_and_averages_from_it(small, tmp_path):
    pictures = Pictures(
        torch.randint(0, 255, (20, 16, 16, 3), dtype=torch.uint8), torch.arange(20) % 3, torch.arange(21), LARGE.labels
    )
    config = TrainConfig(
        LARGE.config, LARGE.sparsity, "data", batch=4, held_out=4, start=str(tmp_path / "small.safetensors")
    )
    run = Run(config, pictures, tmp_path)
    for network in (run.network, run.ema.network):
        assert torch.equal(network.blocks[1].mlp.fc2.weight, small.blocks[1].mlp.fc2.weight)


def test_bundled_checkpoints_are_found_by_name(tmp_path):
    assert bundled("icons-32-patch4.safetensors") == BUNDLED / "icons-32-patch4.safetensors"
    own = tmp_path / "own.safetensors"
    own.touch()
    assert bundled(str(own)) == own
