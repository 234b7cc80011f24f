"""Ways to sample that nodes do not offer: they are here to be measured (docs/results.md).

A variant changes the evaluations of a denoiser.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from ..method.branches import Branch, Evaluation, Prepared
from ..method.prediction import Prediction
from ..method.sampling import Denoiser
from ..method.tokens import TokenOrders, random_scores


class Variant(Protocol):
    """A frozen dataclass, whose fields identify it in results."""

    def __call__(self, model: Denoiser) -> Denoiser: ...


@dataclass(frozen=True)
class _Changed(Denoiser):
    """A denoiser that runs `change(evaluation)` in place of each evaluation."""

    change: Callable[[Evaluation], Evaluation]

    def __call__(self, x: Tensor, sigma: float, conditions: list[Tensor], evaluation: Evaluation) -> list[Tensor]:
        return super().__call__(x, sigma, conditions, self.change(evaluation))


def progress(prediction: Prediction, sigma: float) -> float:
    """How much of the first noise level is gone at `sigma`."""
    return 1 - sigma / float(prediction.sigmas(1)[0])


@dataclass(frozen=True)
class Overshoot:
    """Takes more noise out in a step than D says: x - gain (x - D) in place of every branch's D, between `start` and
    `end` of progress. Its defaults are those of EasyCache, whose guesses do the same: what they keep of D is its
    difference from x, while the noise in x falls."""

    gain: float
    start: float = 0.15
    end: float = 0.95

    def __call__(self, model: Denoiser) -> Denoiser:
        return _Overshooting(model.network, model.prediction, self)


@dataclass(frozen=True)
class _Overshooting(Denoiser):
    settings: Overshoot

    def __call__(self, x: Tensor, sigma: float, *inputs) -> list[Tensor]:
        found, settings = super().__call__(x, sigma, *inputs), self.settings
        if not settings.start <= progress(self.prediction, sigma) <= settings.end:
            return found
        return [torch.lerp(x, clean, settings.gain) for clean in found]


def nested(seed: int, evaluation: int, branch: int, route: int, tokens: int) -> Tensor:
    """A sparser branch keeps a part of what a denser one keeps."""
    return random_scores(seed, evaluation, 0, route, tokens)


def fixed(seed: int, evaluation: int, branch: int, route: int, tokens: int) -> Tensor:
    """The same tokens in every evaluation."""
    return random_scores(seed, 0, branch, route, tokens)


def stratified(seed: int, evaluation: int, branch: int, route: int, tokens: int) -> Tensor:
    """Spread evenly over a square grid: a randomly shifted additive recurrence in two dimensions, in which tokens of
    similar scores lie far apart."""
    place, side = torch.arange(tokens), max(math.isqrt(tokens), 1)
    lattice = (place % side) * 0.7548776662466927 + (place // side) * 0.5698402909980532
    shift = random_scores(seed, evaluation, branch, route, 1).double()
    return (lattice.double() + shift) % 1


ORDERS = {"nested": nested, "fixed": fixed, "stratified": stratified}


@dataclass(frozen=True)
class Ordered:
    """Keeps tokens in an order of ORDERS."""

    order: str

    def __call__(self, model: Denoiser) -> Denoiser:
        runs: dict[int, TokenOrders] = {}

        def change(evaluation: Evaluation) -> Evaluation:
            seed = evaluation.subsets.orders.seed
            orders = runs.setdefault(seed, TokenOrders(seed, evaluation.subsets.orders.ahead, ORDERS[self.order]))
            return replace(evaluation, subsets=replace(evaluation.subsets, orders=orders))

        return _Changed(model.network, model.prediction, change)


@dataclass(frozen=True)
class ByNorm:
    """Keeps the tokens of the smallest L1 norm where they enter the route (or of the largest), mixed with chance:
    `weight` is the share of the norm, scaled to [0, 1] per sample, in a token's score.

    SimpleTuner trains so (`l1_reg`): https://github.com/bghira/SimpleTuner/blob/main/documentation/TREAD.md
    """

    weight: float
    largest: bool = False

    def __call__(self, model: Denoiser) -> Denoiser:
        def change(evaluation: Evaluation) -> Evaluation:
            return _Scored(evaluation.branches, evaluation.subsets, evaluation.mask, norm=self)

        return _Changed(model.network, model.prediction, change)

    def scores(self, x: Tensor, chance: Tensor) -> Tensor:
        """x [B, T, D], chance [B, T] in [0, 1] -> [B, T]; the lowest are kept."""
        norm = x.float().abs().sum(dim=2)
        low, high = norm.aminmax(dim=1, keepdim=True)
        norm = (norm - low) / (high - low).clamp(min=1e-8)
        return torch.lerp(chance, 1 - norm if self.largest else norm, self.weight)


@dataclass(frozen=True)
class _Scored(Evaluation):
    """An evaluation whose kept tokens depend on what they hold."""

    norm: ByNorm = ByNorm(0)

    def drawn(self, routes, batch, tokens, device=None):
        drawn = super().drawn(routes, batch, tokens, device)

        def chance(branch: Branch, route: int) -> Tensor:
            scores = self.subsets.orders.scores_from(self.subsets.evaluation, branch.index, batch, tokens, route)[0]
            return (scores.argsort(dim=1).argsort(dim=1) / tokens).to(device)

        chances = tuple(tuple(chance(b, route) for b in self.branches) for route in range(len(drawn.kept)))
        return _PreparedByNorm(drawn.sources, drawn.kept, chances=chances, norm=self.norm)


@dataclass(frozen=True)
class _PreparedByNorm(Prepared):
    """As many tokens as drawn, chosen by what they hold; `chances[route][chunk]` is [B, T]."""

    chances: tuple[tuple[Tensor, ...], ...] = ()
    norm: ByNorm = ByNorm(0)

    def tokens(self, route, x, where):
        blocks = x.unflatten(0, (max(where) + 1, -1))
        chosen = []
        for block, kept, chance in zip(where, self.kept[route], self.chances[route], strict=True):
            order = self.norm.scores(blocks[block], chance).argsort(dim=1)
            chosen.append(order[:, : kept.shape[1]].sort(dim=1).values)
        return tuple(chosen)
