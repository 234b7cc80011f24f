"""How exactly each tensor of a network has to be stored."""

from collections.abc import Callable

import torch
from torch import nn

from .microdit import Experts
from .xut import Rotary


def stored_as(network: nn.Module, dtype: torch.dtype) -> Callable[[str], torch.dtype]:
    """The precision of each tensor, by its key, of a network that is to be kept in `dtype`.

    Exponents stay in float32: rounded to one byte, the logarithm of a frequency turns a token by radians. One byte per
    number is for the matrices of layers, nearly all of a large network. Position tables, norms, biases, embeddings,
    both ends of the network, and what chooses tokens are in half precision: next to nothing, and the picture shows it.
    """
    exponents = {f"{name}.freqs" for name, module in network.named_modules() if isinstance(module, Rotary)}
    coarse = matrices(network) if dtype.itemsize == 1 else None

    def stored(key: str) -> torch.dtype:
        if key in exponents:
            return torch.float32
        return dtype if coarse is None or key in coarse else torch.float16

    return stored


def matrices(network: nn.Module) -> set[str]:
    """The keys of all matrices of layers, which stand in lists, but those by which experts choose their tokens."""
    lists = tuple(f"{name}." for name, module in network.named_modules() if isinstance(module, nn.ModuleList))
    layers = [(name, module) for name, module in network.named_modules() if name.startswith(lists)]
    keys = {f"{name}.weight" for name, module in layers if isinstance(module, nn.Linear)}
    for name, module in layers:
        if isinstance(module, Experts):
            keys = keys - {f"{name}.gate.weight"} | {f"{name}.w1", f"{name}.w2"}
    return keys
