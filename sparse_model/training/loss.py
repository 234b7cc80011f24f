"""The flow-matching loss of a network that runs on part of its tokens."""

import torch
from einops import reduce
from torch import Tensor, nn

from ..method.branches import Branch, Evaluation
from ..method.prediction import Flow, column
from ..method.tokens import subsets

CLEANEST = 0.05  # sigma below which a data prediction's velocity error is not weighted up further


def flow_loss(network: nn.Module, flow: Flow, x: Tensor, y: Tensor, sigma: Tensor, z: Tensor, gamma: float) -> Tensor:
    """Mean squared velocity error per picture [B] at sparsity rate gamma (arXiv 2601.01608, eq. 2).

    x [B, C, H, W] pictures, y [B, classes] label weights, sigma [B], z like x noise. A network that predicts data is
    measured in velocity as well (arXiv 2511.13720): (D - x) / sigma.
    """
    noisy = _noisy(x, sigma, z)
    output = network(noisy, flow.time(sigma), y, Evaluation((Branch(gamma),), subsets=None)).float()
    return _velocity_error(flow, output, x, noisy, sigma, z).square().flatten(1).mean(dim=1)


def masked_flow_loss(
    network: nn.Module,
    flow: Flow,
    x: Tensor,
    y: Tensor,
    sigma: Tensor,
    z: Tensor,
    gamma: float,
    patch: int,
    mae: float,
) -> Tensor:
    """`flow_loss` over the kept patches, and mae * sigma^2 |v|^2 over the masked ones, per picture [B].

    sigma v is x_t - D, so in masked patches D learns to reconstruct the noisy picture itself from what surrounds them,
    as in a masked autoencoder (arXiv 2306.09305, 2601.01608). `patch` is the side of a patch.
    """
    noisy = _noisy(x, sigma, z)
    drawn = subsets(int(torch.randint(2**62, ())))
    output = network(noisy, flow.time(sigma), y, Evaluation((Branch(gamma),), drawn)).float()
    denoising = _per_patch(_velocity_error(flow, output, x, noisy, sigma, z).square(), patch)  # [B, T]
    velocity = flow.velocity(output, noisy, sigma)
    reconstruction = _per_patch((column(sigma, x) * velocity).square(), patch)
    kept = drawn.draw(0, *denoising.shape, gamma).to(x.device)
    visible = torch.zeros_like(denoising).scatter(1, kept, 1)
    return _mean(denoising, visible) + mae * _mean(reconstruction, 1 - visible)


def noise_levels(batch: int, mean: float, spread: float, generator: torch.Generator) -> Tensor:
    """Logit-normal sigma [B] (arXiv 2403.03206): sigmoid of a normal of that mean and spread."""
    return torch.sigmoid(mean + spread * torch.randn(batch, generator=generator, device=generator.device))


def _noisy(x: Tensor, sigma: Tensor, z: Tensor) -> Tensor:
    level = column(sigma, x)
    return (1 - level) * x + level * z


def _velocity_error(flow: Flow, output: Tensor, x: Tensor, noisy: Tensor, sigma: Tensor, z: Tensor) -> Tensor:
    if flow.output == "data":
        return (output - x) / column(sigma, x).clamp(min=CLEANEST)
    return flow.velocity(output, noisy, sigma) - (z - x)


def _per_patch(x: Tensor, patch: int) -> Tensor:
    """[B, C, H, W] -> the mean of every patch, in the order of the tokens: [B, T]."""
    return reduce(x, "b c (h p) (w q) -> b (h w)", "mean", p=patch, q=patch)


def _mean(values: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean over tokens [B, T] -> [B]; 0 where all weights are."""
    return (values * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)
