"""Tables that many evaluations read and none changes."""

from collections.abc import Callable, Hashable
from functools import lru_cache, wraps

import torch
from torch import Tensor


def made_once(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A function that makes a table out of sizes, a device and the like, each of them once: on a GPU that spares a step
    the launches, or an upload that it would wait for. Not to be written to. A compiled network makes its own."""

    @lru_cache(maxsize=4)  # a few: every one of them takes memory of its device
    def known(*given: Hashable) -> Tensor:
        with torch.inference_mode(False):  # autograd could not save what was made in inference
            return make(*given)

    @wraps(make)
    def table(*given: Hashable) -> Tensor:
        return make(*given) if torch.compiler.is_compiling() else known(*given)

    table.cache_clear = known.cache_clear
    return table
