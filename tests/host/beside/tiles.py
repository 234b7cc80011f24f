"""Nodes that cut a latent into tiles, several of which may share a batch."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from probing import error, message, predictions
from setting import MODELS, PLAN, constant, guided, routed
from torch import Tensor


def tiled(count: int, together: int, order: str) -> Callable:
    """Tiled diffusion: `count` tiles along the width, `together` of them in a call. `order`: the batch of one tile
    behind the other; all tiles of one chunk; or rows as they should not be."""

    def wrapper(model_function: Callable, args: dict) -> Tensor:
        x, c, chunks = args["input"], args["c"], len(args["cond_or_uncond"])
        tiles, outputs = x.chunk(count, dim=-1), []
        for start in range(0, count, together):
            some = tiles[start : start + together]
            n, rows = len(some), len(x)
            places = torch.arange(n * rows).view(n, chunks, -1)
            if order == "chunks":
                places = places.transpose(0, 1)
            elif order == "mixed":
                places = places.flatten().view(-1, n).T  # every tile's rows apart
            places = places.flatten()

            def batch(value: Any, n: int = n, rows: int = rows, places: Tensor = places) -> Any:
                if isinstance(value, Tensor) and value.ndim and len(value) == rows:
                    return value.repeat(n, *[1] * (value.ndim - 1))[places]
                return value

            joined = model_function(
                torch.cat(some)[places], batch(args["timestep"]), **{name: batch(value) for name, value in c.items()}
            )
            outputs += list(joined[places.argsort()].chunk(n))
        return torch.cat(outputs, dim=-1)

    return wrapper


def tiles(where: str) -> dict[str, Any]:
    patcher, x, positive, negative = MODELS[where]()
    both = constant(0.25, 0.75, 2.0, "CFG + SG")

    def found(together: int, order: str = "tiles", plan: Any = PLAN) -> list[Tensor]:
        model = guided(routed(patcher), plan)
        model.set_model_unet_function_wrapper(tiled(2, together, order))
        return predictions(model, positive, negative, x, 2.0)

    def worst(one: list[Tensor], other: list[Tensor]) -> float:
        return max(error(a, b) for a, b in zip(one, other, strict=True))

    def halves(model_function: Callable, args: dict) -> Tensor:
        """Half of the rows at a time, under the labels of all."""
        rows = len(args["input"]) // 2

        def half(value: Any, i: int) -> Any:
            return value[i * rows :][:rows] if isinstance(value, Tensor) and len(value) == 2 * rows else value

        parts = [
            model_function(
                half(args["input"], i), half(args["timestep"], i), **{n: half(v, i) for n, v in args["c"].items()}
            )
            for i in range(2)
        ]
        return torch.cat(parts)

    apart = guided(routed(patcher), PLAN)
    apart.set_model_unet_function_wrapper(halves)
    return {
        "two at a time": worst(found(2), found(1)),
        "chunk by chunk": worst(found(2, "chunks"), found(1)),
        "with a negative": worst(found(2, plan=both), found(1, plan=both)),
        "mixed": message(lambda: found(2, "mixed")),
        "half the rows": message(lambda: predictions(apart, positive, None, x, 2.0)),
    }


CASES: dict[str, Callable[[], Any]] = {f"tiles, {name}": partial(tiles, name) for name in MODELS}
