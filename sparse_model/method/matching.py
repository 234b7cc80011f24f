"""Which omega moves a picture as far as CFG does at a scale: found by looking at both along one path of CFG."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor

from ..conditions.text import Condition
from .branches import Branch, Evaluation
from .guidance import NULL, POSITIVE, RULES
from .sampling import Denoiser
from .schedule import Schedule

HIGHEST = 100.0
"""No larger omega is looked for."""


@dataclass(frozen=True)
class Look:
    """Mean squares over a picture, [B] each, at one moment: of D - D(null), and of the parts of what a schedule adds to
    D at any omega, (D_strong - D) + (omega - 1) * (D_strong - D_weak), with their mean product."""

    progress: float
    sigma: float
    null: Tensor
    strong: Tensor
    weak: Tensor
    product: Tensor

    @classmethod
    def at(cls, progress: float, sigma: float, predictions: Sequence[Tensor]) -> "Look":
        """From D, D(null), D_strong and D_weak [B, ...]."""
        dense, null, strong, weak = (prediction.float().flatten(1) for prediction in predictions)
        own, pull = strong - dense, strong - weak
        pairs = (dense - null, dense - null), (own, own), (pull, pull), (own, pull)
        return cls(progress, sigma, *((a * b).mean(dim=1) for a, b in pairs))

    def cfg(self, scale: float) -> float:
        """How far CFG moves D, as the root of the mean square, on average over the batch."""
        return (scale - 1) * float(self.null.sqrt().mean())

    def guided(self, omega: float) -> float:
        """How far the schedule moves it."""
        share = omega - 1
        square = self.strong + 2 * share * self.product + share**2 * self.weak
        return float(square.clamp(min=0).sqrt().mean())


@dataclass(frozen=True)
class Matching:
    """A schedule that is compared with CFG, and what was seen of both along a path. ValueError for a schedule whose
    rule is dense or has a second network."""

    schedule: Schedule
    looks: list[Look] = field(default_factory=list)

    def __post_init__(self):
        rule = RULES[self.schedule.rule]
        if rule.dense or rule.auxiliary:
            raise ValueError(
                f"The rule {self.schedule.rule} cannot be matched to CFG, because it does not guide by what one "
                "network leaves out; choose SG."
            )

    def asked(self, evaluation: Evaluation, progress: float) -> tuple[Evaluation, list[int]]:
        """An evaluation of all that a look needs, D and D(null) first, and the places of D, D(null), D_strong and
        D_weak in it."""
        now = replace(self.schedule.at(progress), omega=2.0)  # any that needs a weak branch
        strong, weak = RULES[self.schedule.rule].branches(now)
        wanted = [Branch(0.0, 0, POSITIVE), Branch(0.0, 1, NULL), strong, weak]
        branches = tuple(dict.fromkeys(wanted))  # at a gamma of 0 the strong branch is D
        return replace(evaluation, branches=branches), [branches.index(branch) for branch in wanted]

    def matched(self, cfg: float) -> Schedule:
        """The schedule with the omega at which it moves pictures as far as CFG at the scale `cfg`, over all steps.

        A step moves a picture by the change of D times the share of the noise that it takes away. ValueError where the
        strong branch alone moves it further, or no omega moves it as far.
        """
        ends = itertools.pairwise([*(look.sigma for look in self.looks), 0.0])
        shares = [(sigma - following) / sigma for sigma, following in ends]
        target = sum(share * look.cfg(cfg) for share, look in zip(shares, self.looks, strict=True))

        def moved(omega: float) -> float:
            scaled = self.schedule.with_scale(omega)
            pairs = zip(shares, self.looks, strict=True)
            return sum(share * look.guided(scaled.at(look.progress).omega) for share, look in pairs)

        if moved(1.0) > target == 0:
            raise ValueError(
                f"CFG at {cfg:g} does not move the picture, so there is nothing to match: the positive and the "
                "negative condition are the same, or the scale is 1."
            )
        if moved(1.0) > target:
            raise ValueError(
                f"Leaving out tokens in the strong branch alone moves the picture {moved(1.0) / target:.2g} times as "
                f"far as CFG at {cfg:g}; lower gamma_strong."
            )
        if moved(HIGHEST) < target:
            raise ValueError(
                f"No omega up to {HIGHEST:g} moves the picture as far as CFG at {cfg:g}: the strong and the weak "
                "branch hardly differ; raise gamma_weak, lengthen the route or the active interval, or look at more "
                "steps."
            )
        low, high = 1.0, HIGHEST
        for _ in range(32):
            middle = (low + high) / 2
            low, high = (middle, high) if moved(middle) < target else (low, middle)
        return self.schedule.with_scale(round(high, 2))


@dataclass(frozen=True)
class Looking(Denoiser):
    """A denoiser for sampling with CFG in `steps` evaluations that also looks at what a schedule would do."""

    matching: Matching
    steps: int

    def __call__(
        self, x: Tensor, sigma: float, conditions: Sequence[Condition], evaluation: Evaluation
    ) -> list[Tensor]:
        progress = evaluation.subsets.evaluation / self.steps
        asked, places = self.matching.asked(evaluation, progress)
        given = dict(zip((POSITIVE, NULL), conditions, strict=True))
        found = super().__call__(x, sigma, [given[branch.condition] for branch in asked.branches], asked)
        self.matching.looks.append(Look.at(progress, sigma, [found[place] for place in places]))
        return found[:2]
