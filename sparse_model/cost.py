"""Multiply-adds of a network under a plan, counted while its own forward runs on shapes."""

import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from .checkpoints.checkpoint import build
from .checkpoints.spec import ModelSpec
from .conditions.text import Condition, Text
from .method.branches import Branch, Evaluation
from .method.guidance import RULES
from .method.schedule import Schedule
from .method.tokens import keep_count
from .networks.layers import Backend


@dataclass(frozen=True)
class Cost:
    """Multiply-adds of one step for one picture. `strong` and `weak` are the branches run apart, as the paper counts;
    `shared` is what one pass of both saves, because they are one until they keep different tokens."""

    unguided: float
    cfg: float
    strong: float
    weak: float
    shared: float

    @property
    def total(self) -> float:
        """What a guided step runs."""
        return self.strong + self.weak - self.shared


def branch_cost(spec: ModelSpec, gamma: float, attention: bool = False, size: int | None = None) -> int:
    """Multiply-adds of one branch at sparsity rate `gamma`, for one picture.

    Linear layers and convolutions; with `attention` its two products as well (the paper leaves them out). `size` is
    the side of the network's input, its own if not given.
    """
    size = size or spec.config.input_size
    tokens = spec.config.tokens(size, size)
    keep = keep_count(tokens, gamma)
    if keep == 0:
        return _counted(spec, (1.0,), attention, size)
    # Layers cost in proportion to the kept tokens, attention to their square: three counts give every other.
    known = (tokens, (tokens + 1) // 2, 1)
    cost = 0.0
    for k in known:
        others = [j for j in dict.fromkeys(known) if j != k]
        cost += _counted(spec, (1 - k / tokens,), attention, size) * math.prod((keep - j) / (k - j) for j in others)
    return round(cost)


def shared_cost(spec: ModelSpec, gamma_weak: float, attention: bool = False, size: int | None = None) -> int:
    """Multiply-adds that a pass of two branches with one input runs once instead of twice, for one picture: everything
    in front of the first route, and the conditioning of the routed layers."""
    size = size or spec.config.input_size
    tokens = spec.config.tokens(size, size)
    # Any two rates show it, as long as the weak branch keeps no token here exactly if it keeps none there.
    rates = ((tokens - 1) / tokens, 1.0 if keep_count(tokens, gamma_weak) == 0 else (tokens - 1) / tokens)
    apart = sum(_counted(spec, (rate,), attention, size) for rate in rates)
    return apart - _counted(spec, rates, attention, size)


@lru_cache(maxsize=1024)
def _counted(spec: ModelSpec, gammas: tuple[float, ...], attention: bool, size: int) -> int:
    """Runs the network on shapes without data, its layers replaced by ones that only count: branches of one input."""
    count, chunks = Counter(), len(gammas)
    layers, attend, product = _counting_layers(count), _counting_attention(count), _counting_product(count)
    network = build(spec, Backend(layers, attend, device="meta", product=product))
    with torch.no_grad():
        network(
            torch.empty(chunks, spec.config.in_channels, size, size, device="meta"),
            torch.empty(chunks, device="meta"),
            _condition(spec, chunks),
            Evaluation(tuple(Branch(gamma, index, "one") for index, gamma in enumerate(gammas))),
        )
    return count["linear"] + attention * count["attention"]


def _condition(spec: ModelSpec, batch: int) -> Condition:
    if spec.text is None:
        return torch.empty(batch, spec.config.num_classes, device="meta")
    shape = batch, spec.text.length
    return Text(torch.empty(*shape, spec.text.width, device="meta"), torch.empty(*shape, dtype=bool, device="meta"))


def _counting_layers(count: Counter) -> SimpleNamespace:
    class Linear(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            count["linear"] += x.numel() * self.out_features
            return x.new_empty(*x.shape[:-1], self.out_features)

    class Conv2d(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            height, width = (side // stride for side, stride in zip(x.shape[2:], self.stride, strict=True))
            count["linear"] += len(x) * height * width * self.weight.numel()
            return x.new_empty(len(x), self.out_channels, height, width)

    return SimpleNamespace(
        Linear=Linear, Conv2d=Conv2d, LayerNorm=nn.LayerNorm, RMSNorm=nn.RMSNorm, Embedding=nn.Embedding
    )


def _counting_attention(count: Counter) -> Callable[..., Tensor]:
    def attend(q: Tensor, k: Tensor, v: Tensor, heads: int, bias: Tensor | None = None) -> Tensor:
        count["attention"] += 2 * q.numel() * k.shape[1]
        return torch.empty_like(q)

    return attend


def _counting_product(count: Counter) -> Callable[[Tensor, Tensor], Tensor]:
    def product(x: Tensor, weights: Tensor) -> Tensor:
        count["linear"] += x.numel() * weights.shape[2]
        return x.new_empty(*x.shape[:-1], weights.shape[2])

    return product


def step_cost(
    spec: ModelSpec, schedule: Schedule, steps: int, attention: bool = False, size: int | None = None
) -> Cost:
    """The mean cost of a step over `steps` Euler steps of a schedule, beside no guidance and CFG, both dense."""

    def mean(costs: Iterable[float]) -> float:
        return sum(costs) / steps

    dense = branch_cost(spec, 0.0, attention, size)
    moments = [schedule.at(step / steps) for step in range(steps)]
    guided = [now for now in moments if now.omega != 1]
    rule = RULES[schedule.rule]
    together = guided if rule.condition == "same" and not rule.auxiliary else []
    return Cost(
        unguided=dense,
        cfg=2 * dense,
        strong=mean(branch_cost(spec, now.gamma_strong, attention, size) for now in moments),
        weak=mean(branch_cost(spec, now.gamma_weak, attention, size) for now in guided),
        shared=mean(shared_cost(spec, now.gamma_weak, attention, size) for now in together),
    )
