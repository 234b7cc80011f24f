"""Multiply-adds of a network under a plan, counted by PyTorch while the network's own forward runs on shapes."""

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.flop_counter import flop_registry

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


def cost_of(count: Count, rule: str, now: Settings, auxiliary: Count | None = None) -> Cost:
    """The cost of one step under a rule, beside no guidance and CFG, both dense; `auxiliary` counts the branches of the
    weaker network where it is of another size."""
    branches, dense = RULES[rule].branches(now), count((Branch(),))
    counts = (count, auxiliary or count)
    strong, *others = (counts[branch.auxiliary]((branch,)) for branch in branches)
    total = together(branches, count, auxiliary)
    return Cost(dense, 2 * dense, strong, sum(others), strong + sum(others) - total)


def together(branches: Sequence[Branch], count: Count, auxiliary: Count | None = None) -> float:
    """Multiply-adds of one evaluation for one picture: the branches of each network in one pass."""
    passes = [tuple(b for b in branches if b.auxiliary == weak) for weak in (False, True)]
    return sum(way(own) for way, own in zip((count, auxiliary or count), passes, strict=True) if own)


def step_cost(
    spec: ModelSpec,
    schedule: Schedule,
    steps: int,
    attention: bool = False,
    size: int | None = None,
    cfg: float = 1.0,
    auxiliary: ModelSpec | None = None,
) -> Cost:
    """The mean cost of a step over `steps` Euler steps of a schedule; `size` is the side of the network's input,
    `auxiliary` the weaker network of AG rules if it is of another size."""
    count, weak = (given and counter(given, attention, size and (size, size)) for given in (spec, auxiliary))
    return Cost.mean(cost_of(count, schedule.rule, schedule.at(step / steps, cfg), weak) for step in range(steps))


def counter(spec: ModelSpec, attention: bool = False, size: tuple[int, int] | None = None, stay: int = 0) -> Count:
    """Counts passes of a network of this pack: matrix products and convolutions; with `attention` its two products as
    well (the paper leaves them out). `size` is (height, width) of the network's input, its own if not given; `stay`
    tokens are kept at any rate."""
    # the rest decides nothing here
    shown = replace(spec, labels=(), title="", note="", license="", schedule=None, settings=())
    size = size or (spec.config.input_size,) * 2
    tokens = spec.config.tokens(*size)
    kept = replace(subsets(), factors=spec.sparsity.factors(spec.config.depth))
    if stay:
        kept = replace(kept, stay=Staying.first(stay, tokens))

    def count(branches: Sequence[Branch]) -> int:
        inputs = [branch.condition for branch in branches]
        alike = (None if given is None else inputs.index(given) for given in inputs)
        asked = tuple(
            Branch(branch.gamma, i, number) for i, (branch, number) in enumerate(zip(branches, alike, strict=True))
        )
        numbers = (
            tuple(kept.count(tokens, branch.gamma, route) for route in range(spec.sparsity.count)) for branch in asked
        )
        evaluation = Evaluation(asked, kept)
        return _counted(
            shown, _Asked(evaluation, evaluation.sources, evaluation.sparse, tuple(numbers)), attention, size
        )

    return count


@dataclass(frozen=True)
class _Asked:
    """An evaluation, and what its cost depends on: which branches share an input, whether any is sparse, and the
    numbers of tokens that each keeps in every route. Many rates keep as many tokens."""

    evaluation: Evaluation = field(compare=False)
    sources: tuple[int, ...]
    sparse: bool
    kept: tuple[tuple[int, ...], ...]


@lru_cache(maxsize=4096)
@torch.inference_mode(False)  # where operations are seen before they fall into those that have a count
@torch.no_grad()
def _counted(spec: ModelSpec, asked: _Asked, attention: bool, size: tuple[int, int]) -> int:
    network, products, counting = _on_shapes(spec)
    products.clear()
    counting.flops, rows = 0, len(asked.sources)
    with counting:
        network(
            torch.empty(rows, spec.config.in_channels, *size, device="meta"),
            torch.empty(rows, device="meta"),
            _condition(spec, rows),
            asked.evaluation,
        )
    return counting.flops // 2 + attention * sum(products)


class _Counting(TorchDispatchMode):
    """Adds up PyTorch's own counts of floating point operations. Working out the shapes that an operation gives takes
    most of the time, and layers ask for the same ones: what one gave is remembered."""

    def __init__(self):
        super().__init__()
        self.flops, self._known = 0, {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        key = func, _shapes(args), _shapes(tuple(kwargs.items()))
        if (found := self._known.get(key)) is None:
            formula, out = flop_registry.get(func.overloadpacket), func(*args, **kwargs)
            found = out, formula(*args, **kwargs, out_val=out) if formula else 0
            tensors = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
            if tensors and all(value.is_meta for value in tensors):  # others have data: which tokens are kept
                self._known[key] = found
        self.flops += found[1]
        return tree_map_only(Tensor, _fresh, found[0])


def _fresh(x: Tensor) -> Tensor:
    return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device="meta") if x.is_meta else x


def _shapes(value: Any) -> Hashable:
    """All that decides what an operation on tensors without data gives."""
    if isinstance(value, Tensor):
        return value.shape, value.stride(), value.dtype, value.device
    if isinstance(value, (list, tuple)):
        return tuple(map(_shapes, value))
    return type(value), value


@lru_cache(maxsize=2)
def _on_shapes(spec: ModelSpec) -> tuple[nn.Module, list[int], _Counting]:
    """A network without data, the list in which its attention leaves the multiply-adds of its products, and what counts
    all others."""
    products: list[int] = []

    def attend(q: Tensor, k: Tensor, v: Tensor, heads: int, bias: Tensor | None = None) -> Tensor:
        products.append(2 * q.numel() * k.shape[1])
        return torch.empty_like(q)

    return build(spec, Backend(attention=attend, device="meta")), products, _Counting()


def _condition(spec: ModelSpec, rows: int) -> Condition:
    if spec.text is None:
        return torch.empty(rows, spec.config.num_classes, device="meta")
    shape = rows, spec.text.length
    return Text(torch.empty(*shape, spec.text.width, device="meta"), torch.empty(*shape, dtype=bool, device="meta"))
