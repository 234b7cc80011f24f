"""Which chunks of a batch are given the same, and so can share what is computed of it.

The host makes chunks of one condition from copies of one input. Another node may change one of them on its way to the
blocks, or between these; then values are compared, which waits for the device. Without such a node nothing is.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from .family import Family, Stage
from .rows import tensors

if TYPE_CHECKING:
    from .routing import Call, Group


@dataclass(eq=False)
class Inputs:
    """`touched`: another node may have given chunks of one input other values in front of the blocks; `patched`:
    between them; `inside`: in those in front of the route, which shows only once they have run. `modulated` remembers
    of different inputs, for a whole run, whether a stage modulates them alike."""

    touched: bool = False
    patched: bool = False
    inside: bool = False
    modulated: dict[tuple, bool] = field(default_factory=dict)

    def shared(self, call: "Call", arguments: dict[str, Any]) -> bool:
        """Whether a block is given the same for all chunks of one input."""
        if self.inside or not (self.touched or self.patched):
            return not self.inside
        sources = call.evaluation.sources
        pairs = [(sources.index(source), chunk) for chunk, source in enumerate(sources)]
        rows = [[slice(chunk * call.size, (chunk + 1) * call.size) for chunk in pair] for pair in pairs]
        same = equal(call, arguments, rows)
        self.touched = not same
        return same

    def modulate_alike(
        self, call: "Call", stage: Stage, arguments: dict[str, Any], one: "Group", other: "Group"
    ) -> bool:
        """Whether all but the tokens of two groups is the same to a stage. Of one input it is; of others that is found
        out once in a run, for nothing but time changes what modulates an input."""
        sources, branches = call.evaluation.sources, call.evaluation.branches
        chunks = [call.chunks(group) for group in (one, other)]
        same_size, doubted = one.stop - one.start == other.stop - other.start, self.touched or self.patched
        if not (same_size and may_modulate_alike(call.family, call.network, sources, *chunks)):
            return False
        if not doubted and same_inputs(sources, *chunks):
            return True
        known = {} if doubted else self.modulated
        key = stage.path, *(branches[chunk].condition for own in chunks for chunk in own)
        if key not in known:
            tokens = {stage.tokens, stage.text, *call.family.indexed}
            others = {name: value for name, value in arguments.items() if name not in tokens}
            known[key] = equal(call, others, [(one.rows, other.rows)])
        return known[key]


def same_inputs(sources: Sequence[int], one: range, other: range) -> bool:
    """Whether chunks carry the same inputs, one by one, as as many others."""
    return [sources[chunk] for chunk in one] == [sources[chunk] for chunk in other]


def may_modulate_alike(family: Family, network: nn.Module, sources: Sequence[int], one: range, other: range) -> bool:
    """Whether as many chunks as others may be modulated alike: of the same inputs, or by time alone."""
    return len(one) == len(other) and (not family.pooled(network) or same_inputs(sources, one, other))


def equal(call: "Call", arguments: dict[str, Any], pairs: Iterable[Sequence[slice]]) -> bool:
    """Whether arguments of a block are the same for one range of rows and for another, for all such pairs."""
    values = {name: value for name, value in arguments.items() if name != "transformer_options"}
    given = ([tensors(call.select(values, rows)) for rows in pair] for pair in pairs if pair[0] != pair[1])
    found = [(a == b).all() for pair in given for a, b in zip(*pair, strict=True) if a is not b]
    return not found or bool(torch.stack(found).all())
