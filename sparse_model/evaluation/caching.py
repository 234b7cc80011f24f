"""EasyCache, measured as what it competes with: steps whose outputs are guessed from an earlier one."""

from collections import Counter
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from ..cost import Count
from ..method.branches import Evaluation, Prepared
from ..method.sampling import Denoiser
from .variants import progress


@dataclass(frozen=True)
class EasyCache:
    """Leaves out evaluations whose outputs would have changed little (arXiv 2507.02860).

    The last evaluation says how much an output changes with its input. While the changes that it foretells add up to
    less than `threshold` of the output, D is the input plus what D was apart from its input then. As in ComfyUI's node
    of that name (comfy_extras/nodes_easycache.py; its defaults are these): sizes are means of absolute values, the
    first branch (conditional, strong) decides for all, and only between `start` and `end` of progress. Every sample
    decides for itself, so a picture does not depend on its batch.
    """

    threshold: float = 0.2
    start: float = 0.15
    end: float = 0.95

    def __call__(self, model: Denoiser) -> "Cached":
        return Cached(model.network, model.prediction, self)


@dataclass(frozen=True)
class _Some(Evaluation):
    """An evaluation of `rows` of `batch` samples: each keeps the tokens that it keeps among all of them."""

    rows: Tensor | None = None
    batch: int = 0

    def prepare(self, network: nn.Module, x: Tensor) -> Prepared:
        whole = super().prepare(network, x[:1].expand(self.batch * len(self.branches), *x.shape[1:]))
        return replace(whole, kept=tuple(tuple(index[self.rows] for index in route) for route in whole.kept))


@dataclass
class _Memory:
    """Of each sample's last evaluation: its input and first output [B, C, H, W], every branch's output less the input,
    the mean size of the first output [B] and its change per change of the input [B] (NaN if unknown), and the changes
    foretold since [B]. And of how many samples an evaluation of these branches was asked for, and run."""

    branches: tuple = ()
    x: Tensor | None = None
    output: Tensor | None = None
    offsets: list[Tensor] = field(default_factory=list)
    size: Tensor | None = None
    rate: Tensor | None = None
    foretold: Tensor | None = None
    asked: Counter = field(default_factory=Counter)
    ran: Counter = field(default_factory=Counter)


@dataclass(frozen=True)
class Cached(Denoiser):
    """A denoiser of one sampling run that leaves out evaluations."""

    settings: EasyCache
    memory: _Memory = field(default_factory=_Memory)

    def share(self, count: Count) -> float:
        """Of the multiply-adds asked for, or of whatever else branches count as, how many were run."""
        asked, ran = (
            sum(rows * count(branches) for branches, rows in counted.items())
            for counted in (self.memory.asked, self.memory.ran)
        )
        return ran / max(asked, 1)

    def __call__(self, x, sigma, conditions, evaluation):
        memory, branches = self.memory, tuple(branch.index for branch in evaluation.branches)
        if memory.x is None or memory.branches != branches:  # nothing to guess from
            memory.branches, memory.x, memory.output = branches, torch.zeros_like(x), torch.zeros_like(x)
            memory.offsets = [torch.zeros_like(x) for _ in branches]
            memory.size, memory.foretold = (torch.zeros(len(x), device=x.device) for _ in range(2))
            memory.rate = torch.full_like(memory.size, float("nan"))
            needed, known = torch.ones(len(x), dtype=torch.bool, device=x.device), False
        else:
            needed, known = self._needed(x, sigma), True
        rows = needed.nonzero().flatten()
        memory.asked[evaluation.branches] += len(x)
        memory.ran[evaluation.branches] += len(rows)
        if len(rows):
            some = _Some(evaluation.branches, evaluation.subsets, evaluation.mask, rows, len(x))
            found = super().__call__(x[rows], sigma, [condition[rows] for condition in conditions], some)
            self._keep(rows, x[rows], found, known)
        return [x + offset for offset in memory.offsets]

    def _needed(self, x: Tensor, sigma: float) -> Tensor:
        memory, settings = self.memory, self.settings
        if not settings.start <= progress(self.prediction, sigma) <= settings.end:
            return torch.ones(len(x), dtype=torch.bool, device=x.device)
        foretold = memory.foretold + memory.rate * _mean(x - memory.x) / memory.size
        guessed = foretold < settings.threshold  # never of NaN
        memory.foretold = torch.where(guessed, foretold, torch.zeros_like(foretold))
        return ~guessed

    def _keep(self, rows: Tensor, x: Tensor, found: list[Tensor], known: bool) -> None:
        memory = self.memory
        if known:
            memory.rate[rows] = _mean(found[0] - memory.output[rows]) / _mean(x - memory.x[rows])
        memory.x[rows], memory.output[rows], memory.size[rows] = x, found[0], _mean(found[0])
        for offset, output in zip(memory.offsets, found, strict=True):
            offset[rows] = output - x


def _mean(x: Tensor) -> Tensor:
    """[B, ...] -> mean absolute value per sample [B]."""
    return x.abs().flatten(1).mean(dim=1)
