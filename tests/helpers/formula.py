"""Weights and inputs that come out the same everywhere, for comparing a network with outputs stored in a fixture."""

import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

FIXTURES = Path(__file__).parents[1] / "fixtures"


def formula(name: str, shape: tuple[int, ...]) -> Tensor:
    """Uniform numbers that depend on the name alone (RandomState's streams are frozen for good)."""
    values = np.random.RandomState(zlib.crc32(name.encode())).random_sample(shape) - 0.5
    return torch.from_numpy(values * 4 / shape[-1] ** 0.5 if len(shape) > 1 else values).float()


def fill(network: nn.Module, positions: dict[str, Tensor]) -> nn.Module:
    """The network with every weight from the formula, but for the position tables."""
    state = {name: formula(name, tuple(value.shape)) for name, value in network.state_dict().items()}
    network.load_state_dict(state | positions)
    return network.eval().requires_grad_(False)


def relative_error(a: Tensor, b: Tensor) -> float:
    return ((a - b).abs().max() / b.abs().max()).item()


class Chosen:
    """Stands in for a subsets: always keeps the tokens index [B, K]."""

    selection = "exact"

    def __init__(self, index: Tensor):
        self.index = index.long()

    def draw(self, branch: int, batch: int, tokens: int, gamma: float, route: int = 0, device=None) -> Tensor:
        return self.index
