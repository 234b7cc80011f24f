"""Multiply-adds of the attention that really runs. Runs inside a host's Python."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

OVERRIDE = "optimized_attention_override"


def counting(attention: Callable[..., Tensor], add: Callable[[int], None]) -> Callable[..., Tensor]:
    """The host's attention that tells `add` of both products of every function that runs in the end: what is in its
    place may call it once for each branch."""

    def told(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def run(q: Tensor, k: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            axis = 2 if kwargs.get("skip_reshape", False) else 1
            queries, keys = (getattr(value, "tensor", value) for value in (q, k))  # some come in containers
            add(2 * queries.numel() * keys.shape[axis])
            return function(q, k, *args, **kwargs)

        return run

    def run(*args: Any, **kwargs: Any) -> Tensor:
        options = kwargs.get("transformer_options") or {}
        if (override := options.get(OVERRIDE)) is None:
            return told(attention)(*args, **kwargs)
        counted = {OVERRIDE: lambda own, *rest, **more: override(told(own), *rest, **more)}
        return attention(*args, **{**kwargs, "transformer_options": {**options, **counted}})

    return run
