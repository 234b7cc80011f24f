"""Whether what other nodes have put inside routed blocks treats tokens alike wherever they stand.

A block of a transformer does, once its tables are cut along: tokens in another order give the same results in that
order. A patch that keeps data of its own for every token, or counts tokens, does not, and would be wrong on kept
tokens without a word. So at the first evaluation of a run that leaves tokens out, routed blocks run once more, one row
of their sparsest branch, on the same kept tokens in another order.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

BETWEEN = {"double_block", "single_block", "post_input", "noise_refiner", "output_block_patch", "input_block_patch"}
"""Patches that the host calls with all tokens, between blocks."""
CHANGE, TOKENS = 0.05, 0.01
"""A patch is found out by the share of what the block does to a token that depends on the order, in more than that
share of tokens. Low-precision attention stays below."""


def inside_blocks(options: Mapping[str, Any]) -> list[Any]:
    """Other nodes' patches that a call's transformer_options put inside blocks."""
    found = [patch for kind, given in options.get("patches", {}).items() if kind not in BETWEEN for patch in given]
    for kind, given in options.get("patches_replace", {}).items():
        found += [] if kind == "dit" else given.values()
    override = options.get("optimized_attention_override")
    return found if override is None else [*found, override]


def between_blocks(options: Mapping[str, Any]) -> list[Any]:
    """Patches that a call's transformer_options put between blocks, or around them."""
    found = [patch for kind, given in options.get("patches", {}).items() if kind in BETWEEN for patch in given]
    return [*found, *options.get("patches_replace", {}).get("dit", {}).values()]


def objects_inside(replaced: Iterable[str], blocks: Iterable[str]) -> list[str]:
    """Which of the replaced objects of a model, by their names, are a block or a part of one."""
    paths = [f"diffusion_model.{path}." for path in blocks]
    return [name for name in replaced if any(f"{name}.".startswith(path) for path in paths)]


@dataclass(frozen=True)
class Probe:
    """`suspects` are the names of what is inside the blocks. A block's output is compared by `check`."""

    suspects: tuple[str, ...]

    def check(self, given: Tensor, output: Tensor, again: Tensor) -> None:
        """The tokens [1, K, D] that a block was given and what it made of them, twice; ValueError if that differs."""
        eps = torch.finfo(output.dtype).eps
        given, output, again = given.float(), output.float(), again.float()
        rounding = 4 * eps * output.norm(dim=-1)
        differs = (again - output).norm(dim=-1) > CHANGE * (output - given).norm(dim=-1) + rounding
        if float(differs.float().mean()) > TOKENS:
            raise ValueError(
                f"{' or '.join(self.suspects)} cannot work inside a block that drops tokens: its result depends on "
                "where a token stands in the list, which changes when others are left out; take that node out, or let "
                "Token Route route other blocks."
            )
