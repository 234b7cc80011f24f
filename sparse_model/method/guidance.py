"""Guidance rules: which predictions a guided step needs, and how they become one."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from .branches import Branch

POSITIVE, NULL, RANDOM = "positive", "null", "random"
"""What a branch can be conditioned on: what was asked for, nothing, or an independent random label."""


def guide(strong: Tensor, weak: Tensor, omega: float) -> Tensor:
    """omega * strong + (1 - omega) * weak, for any two predictions of one quantity (arXiv 2601.01608, eq. 3, 7, 8)."""
    return weak + omega * (strong - weak)


@dataclass(frozen=True)
class Settings:
    """A schedule's values at one moment, and `cfg`, the scale of a rule that also has CFG. A branch whose scale is 1 is
    not needed."""

    gamma_strong: float
    gamma_weak: float
    omega: float
    cfg: float = 1.0


@dataclass(frozen=True)
class Away:
    """A prediction that the strong branch is moved away from: (scale - 1) * (strong - this one).

    `gamma` and `scale` name the Settings that hold its sparsity rate (None: dense) and its scale. `auxiliary`: it is
    evaluated by a second, weaker network.
    """

    condition: str = POSITIVE
    gamma: str | None = "gamma_weak"
    scale: str = "omega"
    auxiliary: bool = False


@dataclass(frozen=True)
class Rule:
    """The description of a guided step: the strong branch, and what it is moved away from.

    Schedules of a `dense` rule leave out no tokens.
    """

    away: tuple[Away, ...]
    dense: bool = False

    @property
    def auxiliary(self) -> bool:
        """Whether a second, weaker network is needed."""
        return any(away.auxiliary for away in self.away)

    @property
    def conditions(self) -> tuple[str, ...]:
        """What its branches are conditioned on."""
        return (POSITIVE, *(away.condition for away in self.away))

    @property
    def beside_cfg(self) -> bool:
        """Whether it has a CFG scale as well as omega."""
        return any(away.scale == "cfg" for away in self.away)

    @property
    def contrasts_sparsity(self) -> bool:
        """Whether two branches differ in nothing but their tokens."""
        return any(away.condition == POSITIVE and not away.auxiliary for away in self.away)

    def needed(self, now: Settings) -> list[tuple[int, Away]]:
        """The predictions to move away from at this moment, with their branches' indices."""
        return [(index, away) for index, away in enumerate(self.away, 1) if getattr(now, away.scale) != 1]

    def branches(self, now: Settings) -> tuple[Branch, ...]:
        """The predictions that a step needs, the strong one first."""
        return (
            Branch(now.gamma_strong, 0, POSITIVE),
            *(
                Branch(0.0 if away.gamma is None else getattr(now, away.gamma), index, away.condition, away.auxiliary)
                for index, away in self.needed(now)
            ),
        )

    def combine(self, predictions: Sequence[Tensor], now: Settings) -> Tensor:
        """The predictions of `branches`, in their order, as one: the first pair by `guide`, each further pull added."""
        strong, *others = predictions
        guided = strong
        for place, ((_, away), other) in enumerate(zip(self.needed(now), others, strict=True)):
            moved = guide(strong, other, getattr(now, away.scale))
            guided = moved if place == 0 else guided + (moved - strong)
        return guided


RULES: dict[str, Rule] = {
    "SG": Rule((Away(),)),  # eq. 7
    "CFG": Rule((Away(NULL),), dense=True),  # eq. 3
    "CFG + SG": Rule((Away(NULL),)),  # eq. 8
    "ICG": Rule((Away(RANDOM),), dense=True),  # arXiv 2407.02687
    "AG": Rule((Away(auxiliary=True),), dense=True),  # arXiv 2406.02507
    "AG + SG": Rule((Away(auxiliary=True),)),
    "SG beside CFG": Rule((Away(), Away(NULL, None, "cfg"))),
}
