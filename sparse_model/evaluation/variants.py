"""What a schedule cannot say and nodes do not offer: ways to guide and to choose tokens that are here to be measured.

A variant changes a denoiser, and says what it costs beside the schedule's branches.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from ..checkpoints.spec import ModelSpec
from ..cost import branch_cost
from ..method.branches import Branch, Evaluation
from ..method.guidance import guide
from ..method.sampling import Denoiser, null_condition
from ..method.schedule import Schedule
from ..method.tokens import keep_count


class Variant(Protocol):
    """A frozen dataclass, whose fields identify it in results."""

    def __call__(self, model: Denoiser) -> Denoiser: ...

    def cost(self, spec: ModelSpec, schedule: Schedule, steps: int) -> float:
        """Mean multiply-adds of a step on top of the schedule's, for one picture."""


@dataclass(frozen=True)
class NullBranch:
    """Guidance by a third branch, the null condition at sparsity rate `gamma`, with a scale of its own:
    D + (scale - 1) * (D(c; gamma_strong) - D(null; gamma)), where D is what the schedule guides to."""

    scale: float
    gamma: float = 0.0

    def __call__(self, model: Denoiser) -> Denoiser:
        def denoise(evaluate, x, sigma, conditions, evaluation):
            if len(conditions) == 1:  # outside the active interval
                return evaluate(x, sigma, conditions, evaluation)
            branches = (*evaluation.branches, Branch(self.gamma, len(evaluation.branches)))
            conditions = [*conditions, null_condition(conditions[0])]
            strong, weak, null = evaluate(x, sigma, conditions, replace(evaluation, branches=branches))
            pull = guide(strong, null, self.scale) - strong
            return [strong + pull, weak + pull]  # their guided mean moves by `pull`, whatever omega is

        return _Changed(model.network, model.prediction, denoise)

    def cost(self, spec: ModelSpec, schedule: Schedule, steps: int) -> float:
        guided = sum(schedule.at(step / steps).omega != 1 for step in range(steps))
        return branch_cost(spec, self.gamma) * guided / steps


@dataclass(frozen=True)
class ByNorm:
    """Keeps the tokens of the smallest L1 norm where they enter the route (or of the largest), mixed with chance:
    `weight` is the share of the norm, scaled to [0, 1] per sample, in a token's score.

    SimpleTuner trains so (`l1_reg`): https://github.com/bghira/SimpleTuner/blob/main/documentation/TREAD.md
    """

    weight: float
    largest: bool = False

    def __call__(self, model: Denoiser) -> Denoiser:
        def denoise(evaluate, x, sigma, conditions, evaluation):
            return evaluate(x, sigma, conditions, _Chosen(evaluation.branches, evaluation.seed, self))

        return _Changed(model.network, model.prediction, denoise)

    def cost(self, spec: ModelSpec, schedule: Schedule, steps: int) -> float:
        return 0.0

    def scores(self, x: Tensor, chance: Tensor) -> Tensor:
        """x [B, T, D], chance [B, T] in [0, 1] -> [B, T]; the lowest are kept."""
        norm = x.float().abs().sum(dim=2)
        low, high = norm.aminmax(dim=1, keepdim=True)
        norm = (norm - low) / (high - low).clamp(min=1e-8)
        return torch.lerp(chance, 1 - norm if self.largest else norm, self.weight)


@dataclass(frozen=True)
class _Changed(Denoiser):
    """`denoise(evaluate, ...)` in the place of a denoiser's own `evaluate(...)`."""

    denoise: Callable[..., list[Tensor]]

    def __call__(self, x: Tensor, sigma: float, conditions: list[Tensor], evaluation: Evaluation) -> list[Tensor]:
        return self.denoise(super().__call__, x, sigma, conditions, evaluation)


@dataclass(frozen=True)
class _Chosen(Evaluation):
    """An evaluation whose kept tokens depend on what they hold."""

    rule: ByNorm = ByNorm(0)

    def choose(self, route, x, where=None):
        where = where or self.sources
        blocks = x.unflatten(0, (max(where) + 1, -1))
        kept = []
        for branch, block in zip(self.branches, where, strict=True):
            batch, tokens = blocks.shape[1:3]
            place = self.seed.order(branch.index, batch, tokens, route, x.device).argsort(dim=1)
            order = self.rule.scores(blocks[block], place / tokens).argsort(dim=1)
            kept.append(order[:, : keep_count(tokens, branch.gamma)].sort(dim=1).values)
        return tuple(kept)
