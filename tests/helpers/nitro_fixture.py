"""The networks and the prompts of fixtures/nitro.npz; tests/networks/test_nitro.py says what is in it."""

import torch
from formula import formula
from torch import nn

from sparse_model.conditions.text import Text
from sparse_model.networks.nitro_dit import NitroDiTConfig
from sparse_model.networks.nitro_mmdit import NitroMMDiTConfig

SIZES = {"input_size": 8, "in_channels": 4, "width": 48, "depth": 5, "heads": 4, "hidden": 192, "text_width": 24}
DIT, MMDIT = NitroDiTConfig(**SIZES), NitroMMDiTConfig(**SIZES, dual=3)
PROMPTS = Text(4 * formula("text", (2, 1, 7, 24))[:, 0], torch.arange(7) < torch.tensor([[7], [3]]))
EMPTY = Text(4 * formula("null", (1, 1, 7, 24))[:, 0], torch.arange(7).expand(1, -1) < 1)


def filled(network: nn.Module) -> nn.Module:
    """The network with weights by formula, those of norms of heads and text around 1."""
    around_one = "norm_q.weight", "norm_k.weight", "text_embedding_norm.weight"
    around_one += "norm_added_q.weight", "norm_added_k.weight"
    weights = {key: formula(key, tuple(value.shape)) for key, value in network.state_dict().items()}
    network.load_state_dict({key: value + key.endswith(around_one) for key, value in weights.items()})
    return network.eval().requires_grad_(False)
