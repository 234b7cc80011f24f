"""The losses, against the same written out sample by sample."""

import pytest
import torch

from sparse_model.method.branches import Branch, Evaluation
from sparse_model.method.prediction import Flow
from sparse_model.training.loss import CLEANEST, flow_loss, masked_flow_loss


class Constant(torch.nn.Module):
    """Answers with a fixed picture and remembers its evaluation."""

    def __init__(self, output):
        super().__init__()
        self.output = output

    def forward(self, x, t, y, evaluation):
        self.x, self.t, self.evaluation = x, t, evaluation
        return self.output


@pytest.fixture
def example():
    generator = torch.Generator().manual_seed(1)
    x, z, output = torch.randn(3, 2, 3, 4, 8, generator=generator)
    return x, torch.zeros(2, 5), torch.tensor([0.02, 0.7]), z, output


def by_hand(kind, x, sigma, z, output):
    """(squared velocity error, sigma^2 |v|^2) at every pixel, written out sample by sample."""
    errors, velocities = [], []
    for i, level in enumerate(sigma):
        noisy = (1 - level) * x[i] + level * z[i]
        if kind == "data":
            errors.append(((output[i] - x[i]) / max(level, CLEANEST)) ** 2)
            velocities.append((noisy - output[i]) ** 2)
        else:
            errors.append((output[i] - (z[i] - x[i])) ** 2)
            velocities.append((level * output[i]) ** 2)
    return torch.stack(errors), torch.stack(velocities)


@pytest.mark.parametrize("kind", ["velocity", "data"])
def test_flow_loss(example, kind):
    x, y, sigma, z, output = example
    network = Constant(output)
    loss = flow_loss(network, Flow(kind, time_scale=10.0), x, y, sigma, z, 0.5)
    torch.testing.assert_close(loss, by_hand(kind, x, sigma, z, output)[0].flatten(1).mean(1))
    torch.testing.assert_close(network.t, 10 * sigma)
    assert network.evaluation == Evaluation((Branch(0.5),), subsets=None)


@pytest.mark.parametrize("kind", ["velocity", "data"])
def test_masked_loss_denoises_what_it_sees_and_reconstructs_what_it_does_not(example, kind):
    x, y, sigma, z, output = example
    network = Constant(output)
    torch.manual_seed(3)
    loss = masked_flow_loss(network, Flow(kind), x, y, sigma, z, gamma=0.6, patch=2, mae=0.25)
    error, square = by_hand(kind, x, sigma, z, output)
    (kept,) = network.evaluation.draw(0, 2, 8, None)
    assert kept.shape == (2, 4)  # 8 tokens of 2 x 2 pixels, int(8 * 0.6) = 4 of them masked
    for i in range(2):
        seen, hidden = [], []
        for token in range(8):
            row, column = 2 * (token // 4), 2 * (token % 4)
            patch = (i, slice(None), slice(row, row + 2), slice(column, column + 2))
            (seen if token in kept[i] else hidden).append((error if token in kept[i] else square)[patch].mean())
        expected = torch.stack(seen).mean() + 0.25 * torch.stack(hidden).mean()
        torch.testing.assert_close(loss[i], expected)


def test_masked_loss_without_a_masked_token_is_the_flow_loss(example):
    x, y, sigma, z, output = example
    arguments = (Constant(output), Flow(), x, y, sigma, z, 0.1)
    torch.testing.assert_close(masked_flow_loss(*arguments, 2, 0.5), flow_loss(*arguments))


def test_masks_follow_torchs_seed(example):
    x, y, sigma, z, output = example
    seeds = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        network = Constant(output)
        masked_flow_loss(network, Flow(), x, y, sigma, z, 0.5, 2, 0.1)
        seeds.append(network.evaluation.subsets.orders.seed)
    assert seeds[0] == seeds[1] != seeds[2]
