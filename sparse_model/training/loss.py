"""The flow-matching loss of a network that runs on part of its tokens."""

import torch
from torch import Tensor, nn

from ..branches import Branch, Evaluation
from ..prediction import Flow, column

CLEANEST = 0.05  # sigma below which a data prediction's velocity error is not weighted up further


def flow_loss(network: nn.Module, flow: Flow, x: Tensor, y: Tensor, sigma: Tensor, z: Tensor, gamma: float) -> Tensor:
    """Mean squared velocity error per picture [B] at sparsity rate gamma (arXiv 2601.01608, eq. 2).

    x [B, C, H, W] pictures, y [B, classes] label weights, sigma [B], z like x noise. A network that predicts data is
    measured in velocity as well (arXiv 2511.13720): (D - x) / sigma.
    """
    level = column(sigma, x)
    noisy = (1 - level) * x + level * z
    output = network(noisy, flow.time(sigma), y, Evaluation((Branch(gamma),), seed=None)).float()
    if flow.output == "data":
        error = (output - x) / level.clamp(min=CLEANEST)
    else:
        error = flow.velocity(output, noisy, sigma) - (z - x)
    return error.square().flatten(1).mean(dim=1)


def noise_levels(batch: int, mean: float, spread: float, generator: torch.Generator) -> Tensor:
    """Logit-normal sigma [B] (arXiv 2403.03206): sigmoid of a normal of that mean and spread."""
    return torch.sigmoid(mean + spread * torch.randn(batch, generator=generator))
