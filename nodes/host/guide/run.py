"""What one sampling run remembers between its steps, and how a step's predictions reach a sampler that combines two."""

import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from ....sparse_model.method.branches import Branch, Evaluation
from ....sparse_model.method.guidance import NULL, RULES, Rule, Settings
from ....sparse_model.method.schedule import Schedule
from ....sparse_model.method.token_mask import TokenMask
from ....sparse_model.method.tokens import Subsets, subsets
from .progress import Progress


@dataclass(eq=False)
class Run:
    """One sampling run under a schedule, from its `first` evaluation on; `steps` evaluations are expected.

    `relative`: the sampler's own scale is omega, and the schedule's omega - 1 is the share of it that a step gets.
    `cfg` tells that scale at the moment, which nodes change from step to step. Tokens under a `mask` are never left
    out. `strong` is what other nodes' calls see between ours, `pull` what has to be added to what the sampler makes of
    the latest pair, `ran` how often each set of branches was asked for and `left_out` how often EasyCache guessed it,
    `began` when the first one was (of `time.perf_counter`), and `unscaled` at how many of them the sampler's scale was
    1.

    An object because the host copies dicts and lists in its options at every call. It is made when sampling starts and
    vanishes with the run's own options.
    """

    schedule: Schedule
    seed: int = 0
    first: int = 0
    steps: int = 1
    relative: bool = False
    cfg: Callable[[], Any] = lambda: None
    mask: TokenMask | None = None
    ran: Counter[tuple[Branch, ...]] = field(default_factory=Counter, init=False)
    left_out: Counter[tuple[Branch, ...]] = field(default_factory=Counter, init=False)
    began: float | None = field(default=None, init=False)
    unscaled: int = field(default=0, init=False)
    omegas: dict[float, float] = field(default_factory=dict, init=False)  # the schedule's own, by progress
    strong: Evaluation | None = field(default=None, init=False)
    pull: Tensor | None = field(default=None, init=False)
    _kept: Subsets = field(init=False)
    _said: bool = field(default=False, init=False)
    _latest: tuple[float | None, Settings] | None = field(default=None, init=False)
    _progress: Progress | None = field(default=None, init=False)  # of the run's one model sampling

    def __post_init__(self):
        self._kept = subsets(self.seed, self.first, self.schedule.selection, self.steps)

    def __deepcopy__(self, memo: dict) -> "Run":
        """Old hosts copy the options of a model deeply at every clone; a run has one state."""
        return self

    @property
    def evaluations(self) -> int:
        """How many there were."""
        return self.ran.total()

    @property
    def rule(self) -> Rule:
        return RULES[self.schedule.rule]

    @property
    def scaled(self) -> bool:
        """Whether the sampler's scale at the moment is another than 1; where it is not known it may be."""
        scale = self.cfg() if self.relative else None
        return not (isinstance(scale, int | float) and math.isclose(scale, 1))

    def settings(self, model_sampling: Any, sigma: Tensor, scaled: bool = True) -> Settings:
        """The schedule at the noise level of `sigma` [B], which waits for the device and is read only if that matters.
        Without a scale of its own (not `scaled`) the sampler uses one prediction."""
        level = None if self.schedule.steady else float(sigma.flatten()[0])
        if self._latest is None or self._latest[0] != level:
            moment = 0.0
            if level is not None:
                self._progress = self._progress or Progress(model_sampling)
                moment = self._progress(level)
            self._latest = level, self.schedule.at(moment)
            self.omegas[moment] = self._latest[1].omega
        now = self._latest[1]
        if self.rule.beside_cfg:
            if not scaled and not self._said:
                self._said = True
                logging.info("Sparse Guidance: there is no CFG here (cfg 1, or no negative); SG guides on its own.")
            return replace(now, cfg=math.inf if scaled else 1.0)  # whatever it is, the sampler knows it
        return now if scaled else replace(now, omega=1.0)

    def next_evaluation(self, now: Settings, null: bool = False) -> Evaluation:
        """The branches of a step on a fresh token subset (arXiv 2601.01608, section 3); `null` adds an unconditional
        prediction on the strong branch's tokens, for other nodes that compare the two."""
        if self.began is None:
            self.began = time.perf_counter()
        branches, kept = self.rule.branches(now), self._kept.at(self.first + self.evaluations)
        self.strong = Evaluation(branches[:1], kept, self.mask)
        asked = (*branches, replace(branches[0], condition=NULL)) if null else branches
        self.ran[asked] += 1
        return Evaluation(asked, kept, self.mask)

    def pair(self, predictions: Sequence[Tensor], now: Settings) -> tuple[Tensor, Tensor | None]:
        """The predictions of a step's branches as (strong, weak), which the sampler combines at its own scale; without
        a weak one it has nothing to combine."""
        strong, *others = predictions
        weak, self.pull = None, None
        for (_, away), other in zip(self.rule.needed(now), others, strict=True):
            if self.rule.beside_cfg and away.scale == "omega":
                self.pull = (now.omega - 1) * (strong - other)
            else:
                weak = toward(strong, other, now.omega - 1) if self.relative else other
        return strong, weak


def toward(strong: Tensor, weak: Tensor, share: float) -> Tensor:
    """strong + (weak - strong) * share, and the weak prediction itself, bit for bit, at a share of 1."""
    return weak if math.isclose(share, 1, rel_tol=1e-6) else strong + (weak - strong) * share


def first_evaluation(model_sampling: Any, sigma: float) -> int:
    """Where a run starts to count evaluations: 0 from pure noise, elsewhere in img2img and later stages, so that two
    stages of one seed do not keep the same tokens."""
    return round(Progress(model_sampling)(sigma) * 1_000_000)
