"""Multiply-adds of a network under a plan, counted by PyTorch while the network's own forward runs on shapes."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from .checkpoints.checkpoint import build
from .checkpoints.spec import ModelSpec
from .conditions.text import Condition, Text
from .method.branches import Branch, Evaluation
from .method.guidance import RULES, Settings
from .method.schedule import Schedule
from .method.tokens import Staying, subsets
from .networks.layers import Backend

Count = Callable[[Sequence[Branch]], float]
"""Branches that run in one pass -> their multiply-adds for one picture."""


@dataclass(frozen=True)
class Cost:
    """Multiply-adds of one step for one picture. `strong` is the strong branch and `weak` all others, run apart, as the
    paper counts; `shared` is what one pass of them saves, because they are one until they keep different tokens."""

    unguided: float
    cfg: float
    strong: float
    weak: float
    shared: float

    @property
    def total(self) -> float:
        """What a guided step runs."""
        return self.strong + self.weak - self.shared

    @classmethod
    def mean(cls, costs: Iterable["Cost"]) -> "Cost":
        """The mean over several steps."""
        costs = list(costs)
        return cls(*(sum(getattr(cost, field.name) for cost in costs) / len(costs) for field in fields(cls)))


def cost_of(count: Count, rule: str, now: Settings) -> Cost:
    """The cost of one step under a rule, beside no guidance and CFG, both dense."""
    branches, dense = RULES[rule].branches(now), count((Branch(),))
    strong, *others = (count((branch,)) for branch in branches)
    passes = [tuple(b for b in branches if b.auxiliary == auxiliary) for auxiliary in (False, True)]
    total = sum(count(own) for own in passes if own)
    return Cost(dense, 2 * dense, strong, sum(others), strong + sum(others) - total)


def step_cost(
    spec: ModelSpec,
    schedule: Schedule,
    steps: int,
    attention: bool = False,
    size: int | None = None,
    cfg: float = 1.0,
) -> Cost:
    """The mean cost of a step over `steps` Euler steps of a schedule; `size` is the side of the network's input."""
    count = counter(spec, attention, size and (size, size))
    return Cost.mean(cost_of(count, schedule.rule, schedule.at(step / steps, cfg)) for step in range(steps))


def counter(spec: ModelSpec, attention: bool = False, size: tuple[int, int] | None = None, stay: int = 0) -> Count:
    """Counts passes of a network of this pack: matrix products and convolutions; with `attention` its two products as
    well (the paper leaves them out). `size` is (height, width) of the network's input, its own if not given; `stay`
    tokens are kept at any rate."""
    shown = replace(
        spec, labels=(), title="", note="", license="", schedule=None, settings=()
    )  # the rest decides nothing here
    size = size or (spec.config.input_size,) * 2

    def count(branches: Sequence[Branch]) -> int:
        inputs = [branch.condition for branch in branches]
        alike = (None if given is None else inputs.index(given) for given in inputs)
        asked = tuple(
            Branch(branch.gamma, i, number) for i, (branch, number) in enumerate(zip(branches, alike, strict=True))
        )
        return _counted(shown, asked, attention, size, stay)

    return count


@lru_cache(maxsize=1024)
def _counted(spec: ModelSpec, branches: tuple[Branch, ...], attention: bool, size: tuple[int, int], stay: int) -> int:
    network, products = _on_shapes(spec)
    products.clear()
    rows, kept = len(branches), subsets()
    if stay:
        kept = replace(kept, stay=Staying.first(stay, spec.config.tokens(*size)))
    with torch.no_grad(), FlopCounterMode(display=False) as flops:
        network(
            torch.empty(rows, spec.config.in_channels, *size, device="meta"),
            torch.empty(rows, device="meta"),
            _condition(spec, rows),
            Evaluation(branches, kept),
        )
    return flops.get_total_flops() // 2 + attention * sum(products)


@lru_cache(maxsize=2)
def _on_shapes(spec: ModelSpec) -> tuple[nn.Module, list[int]]:
    """A network without data, and the list in which its attention leaves the multiply-adds of its products."""
    products: list[int] = []

    def attend(q: Tensor, k: Tensor, v: Tensor, heads: int, bias: Tensor | None = None) -> Tensor:
        products.append(2 * q.numel() * k.shape[1])
        return torch.empty_like(q)

    return build(spec, Backend(attention=attend, device="meta")), products


def _condition(spec: ModelSpec, rows: int) -> Condition:
    if spec.text is None:
        return torch.empty(rows, spec.config.num_classes, device="meta")
    shape = rows, spec.text.length
    return Text(torch.empty(*shape, spec.text.width, device="meta"), torch.empty(*shape, dtype=bool, device="meta"))
