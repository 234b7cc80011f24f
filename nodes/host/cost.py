"""What a plan costs on a MODEL: tokens and multiply-adds of every step."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ...sparse_model.cost import Cost, cost_of, together
from ...sparse_model.method.branches import Branch
from ...sparse_model.method.guidance import RULES, Settings
from ...sparse_model.method.schedule import Schedule
from ...sparse_model.method.tokens import Staying, subsets
from .adapters import adapter_of


@dataclass(frozen=True)
class Step:
    """One step: the schedule's values, its branches and how many tokens each keeps (the mean over routes of different
    factors), and its cost for one picture."""

    now: Settings
    branches: tuple[Branch, ...]
    kept: tuple[int, ...]
    cost: Cost


def step_costs(
    model: Any,
    schedule: Schedule,
    moments: Sequence[float],
    shape: tuple[int, ...],
    text: int,
    cfg: float = 1.0,
    stay: int = 0,
    weak_model: Any | None = None,
) -> list[Step]:
    """A step at each of these moments of progress over a latent [B, C, ...] with `text` text tokens, where `stay` image
    tokens are kept at any rate. Branches of a weaker model count at its size, or at the model's own where there is
    none."""
    adapter = adapter_of(model)
    weak = None if weak_model is None else adapter_of(weak_model).counter(shape, text, stay)
    tokens, count = adapter.tokens(shape), adapter.counter(shape, text, stay)
    factors = adapter.sparsity.factors(adapter.depth)
    subset = replace(subsets(), factors=factors, stay=Staying.first(stay, tokens) if stay else None)
    routes = range(max(len(factors), 1))
    made: dict[tuple[Branch, ...], Step] = {}  # omega, which may change at every step, decides nothing more

    def step(now: Settings) -> Step:
        branches = RULES[schedule.rule].branches(now)
        if branches in made:
            return replace(made[branches], now=now)
        kept = tuple(
            round(sum(subset.count(tokens, branch.gamma, route) for route in routes) / len(routes))
            if branch.gamma > 0
            else tokens
            for branch in branches
        )
        made[branches] = Step(now, branches, kept, cost_of(count, schedule.rule, now, weak))
        return made[branches]

    return [step(schedule.at(moment, cfg)) for moment in moments]


def even(steps: int) -> list[float]:
    """Progress at so many steps that are even over it."""
    return [number / steps for number in range(steps)]


def share_of_unguided(
    model: Any,
    ran: Mapping[tuple[Branch, ...], int],
    shape: tuple[int, ...],
    text: int,
    stay: int = 0,
    weak_model: Any | None = None,
) -> float:
    """Multiply-adds of the evaluations that ran, of so many times these branches, as a share of as many dense ones of
    one branch; the rest is that of `step_costs`."""
    count = adapter_of(model).counter(shape, text, stay)
    weak = None if weak_model is None else adapter_of(weak_model).counter(shape, text, stay)
    total = sum(times * together(branches, count, weak) for branches, times in ran.items())
    return total / (sum(ran.values()) * count((Branch(),)))
