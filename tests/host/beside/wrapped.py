"""Modules that another node has put in the place of a model's: blocks, lists of blocks, networks."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from probing import error, predictions, same
from setting import MODELS, adapter_of, host, routed, sg
from torch import nn


class Around(nn.Module):
    """What a pack puts in the place of a module: it calls it, and names no arguments."""

    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner = inner

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.inner(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return super().__getattr__(name) if name == "inner" else getattr(self.inner, name)


def compiled(module: nn.Module) -> nn.Module:
    return torch.compile(module, backend="eager")


PARENTS: dict[str, tuple[str, str, Callable[[nn.Module], nn.Module]]] = {
    "compiled block": ("host", "diffusion_model.double_blocks.1", compiled),
    "block in another module": ("host", "diffusion_model.single_blocks.1", Around),
    "compiled network": ("host", "diffusion_model", compiled),
    "network in another module": ("host", "diffusion_model", Around),
    "another list of blocks": ("host", "diffusion_model.double_blocks", lambda blocks: nn.ModuleList(list(blocks))),
    "own compiled network": ("own", "diffusion_model", compiled),
    "own network in another module": ("own", "diffusion_model", Around),
}


def parent(where: str, name: str, change: Callable[[nn.Module], nn.Module]) -> dict[str, Any]:
    """An object patch on what a route's blocks are in, before and behind Token Route."""
    patcher, x, positive, negative = MODELS[where]()
    stock = predictions(patcher, positive, negative, x, 2.0)
    alone, about = sg(routed(patcher), x, positive), adapter_of(patcher).layer_names
    before = patcher.clone()
    before.add_object_patch(name, change(patcher.get_model_object(name)))
    behind = routed(patcher)
    behind.add_object_patch(name, change(patcher.get_model_object(name)))
    errors, named = [], []
    for patched in (routed(before), behind):
        errors += [error(a, b) for a, b in zip(sg(patched, x, positive), alone, strict=True)]
        named.append(adapter_of(patcher).layer_names == about)  # while the patched one is loaded
    again = sg(routed(patcher), x, positive)
    return {
        "error": max(errors),
        "named": all(named),
        "again": same(again, alone),
        "stock": same(stock, predictions(patcher, positive, negative, x, 2.0)),
    }


def leftovers() -> dict[str, Any]:
    """Blocks after a run, and a pack that swaps their class, then and while they are routed."""
    patcher, x, positive, negative = host()
    network = patcher.model.diffusion_model
    blocks, calls = [*network.double_blocks, *network.single_blocks], []
    alone = sg(routed(patcher), x, positive)
    clean = [name for block in blocks for name in block.__dict__ if name == "forward"]
    block = network.single_blocks[1]
    kind = type(block)

    class Swapped(kind):
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            calls.append(len(args[0]))
            return super().forward(*args, **kwargs)

    block.__class__ = Swapped
    predictions(patcher, positive, negative, x, 2.0)
    stock_calls = len(calls)
    swapped = sg(routed(patcher), x, positive)
    block.__class__ = kind
    return {"clean": not clean, "stock": stock_calls, "routed": len(calls) - stock_calls, "same": same(alone, swapped)}


CASES: dict[str, Callable[[], Any]] = {name: partial(parent, *how) for name, how in PARENTS.items()}
CASES |= {
    "leftovers": leftovers,
}
