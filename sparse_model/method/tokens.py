"""Token subsets: how many tokens a sparsity rate keeps, which ones, and how to take them out and put them back."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .grid import Grid

BERNOULLI, STRUCTURED = "bernoulli", "structured"
SELECTIONS = ("exact", BERNOULLI, STRUCTURED)


def keep_count(tokens: int, gamma: float) -> int:
    """Tokens kept out of `tokens` at sparsity rate `gamma` in [0, 1]: T - int(T * gamma), as TREAD counts them."""
    return tokens - int(tokens * gamma)


def take(x: Tensor, index: Tensor) -> Tensor:
    """Tokens out of rows: x [R, T, ...], index [B, K] of tokens counted through all rows -> [B, K, ...]."""
    return x.flatten(0, 1).index_select(0, index.flatten()).unflatten(0, index.shape)


def put(x: Tensor, index: Tensor, kept: Tensor) -> Tensor:
    """Tokens back into rows: a copy of x [R, T, ...] with its tokens index [B, K] replaced by kept [B, K, ...]."""
    return x.flatten(0, 1).index_copy(0, index.flatten(), kept.flatten(0, 1)).unflatten(0, x.shape[:2])


def random_subset(batch: int, tokens: int, keep: int, device: torch.device | str | None = None) -> Tensor:
    """An independent uniform subset per sample from the global generator, ascending: [batch, keep]. For training."""
    return torch.rand(batch, tokens, device=device).argsort(dim=1)[:, :keep].sort(dim=1).values


def _generator(*key: int) -> torch.Generator:
    """A CPU generator whose stream depends on every number of the key and on nothing else."""
    state = np.random.SeedSequence(_words(key)).generate_state(1, np.uint64)
    return torch.Generator("cpu").manual_seed(int(state[0]) >> 1)


def _words(key: Sequence[int]) -> np.ndarray:
    """Numbers, each of 64 bits, as SeedSequence takes them apart itself, three times as slowly: low word, high word
    unless it is 0."""
    words = []
    for number in key:
        high, low = divmod(number % 2**64, 2**32)
        words += (low, high) if high else (low,)
    return np.array(words, dtype=np.uint32)


def random_scores(seed: int, evaluation: int, branch: int, route: int, tokens: int) -> Tensor:
    """One uniform number per token, [tokens]; the tokens of the lowest are kept."""
    return torch.rand(tokens, generator=_generator(seed, evaluation, branch, route, 1))


@dataclass(frozen=True, eq=False)
class Staying:
    """Tokens that are kept at any rate: `which` [B or 1, tokens] of every sample or of all, on the CPU."""

    which: Tensor

    @cached_property
    def count(self) -> int:
        """The most of any sample: so many tokens are kept of each, so that a batch stays rectangular."""
        return int(self.which.sum(dim=1).max())

    @classmethod
    def first(cls, count: int, tokens: int) -> "Staying":
        """Any `count` of `tokens`, where only their number matters."""
        return cls(torch.arange(tokens).unsqueeze(0) < count)


class TokenOrders:
    """The order in which one run keeps the tokens of every sample: a subset of any size is its beginning.

    Drawn on the CPU from (seed, evaluation, branch, route) alone, so the same tokens are kept on every device and
    however a host splits the branches over calls. Sample i of a batch uses `seed + i`, the same as a batch of one
    with that seed; how many are kept is not decided here (`Subsets.count`). Subsets of the `ahead` evaluations that are
    expected are made in even blocks of at most BLOCK and stay on the device, so that nothing is uploaded in the middle
    of most steps.
    """

    BLOCK = 32

    def __init__(self, seed: int = 0, ahead: int = 1, scores: Callable[..., Tensor] = random_scores):
        self.seed, self.ahead, self.scores = seed, max(ahead, 1), scores  # a run may be of no steps
        blocks = -(-self.ahead // self.BLOCK)
        self._block = -(-self.ahead // blocks)
        self._samples: dict[int, TokenOrders] = {}
        self._drawn: dict[tuple, tuple[int, Tensor]] = {}  # key -> first evaluation, scores from there on
        self._all: dict[tuple, Tensor] = {}
        self._made: dict[tuple, tuple[int, Tensor]] = {}  # key -> first evaluation, subsets of one size from there on

    def of(self, sample: int) -> "TokenOrders":
        """Those of one sample of the batch."""
        if sample not in self._samples:
            self._samples[sample] = TokenOrders(self.seed + sample, self.ahead, self.scores)
        return self._samples[sample]

    def scores_from(
        self,
        evaluation: int,
        branch: int,
        batch: int,
        tokens: int,
        route: int = 0,
        stay: Staying | None = None,
        grid: Grid | None = None,
    ) -> Tensor:
        """[n, batch, tokens] on the CPU: the scores of this evaluation and of those behind it that are drawn already.
        Tokens that stay have negative ones; those of the others do not depend on them. Over a `grid` the lowest are
        even."""
        key = branch, batch, tokens, route, stay, grid
        first, drawn = self._drawn.get(key, (evaluation, ()))
        if not 0 <= evaluation - first < len(drawn):
            first = evaluation
            scores = torch.stack([
                self.scores(self.seed + i, later, branch, route, grid.chances if grid else tokens)
                for later in range(first, first + self._block)
                for i in range(batch)
            ])  # fmt: skip
            if grid is not None:
                scores = grid.scores(scores)
            if stay is not None:
                rows = torch.arange(batch).repeat(self._block) % len(stay.which)
                scores = scores - stay.which[rows].to(scores)  # scores lie in [0, 1)
            drawn = scores.unflatten(0, (self._block, batch))
            self._drawn[key] = first, drawn
        return drawn[evaluation - first :]

    def every(self, batch: int, tokens: int, device: torch.device | str | None = None) -> Tensor:
        """[batch, tokens] int64: all of them, made once."""
        key = batch, tokens, str(device)
        if key not in self._all:
            self._all[key] = torch.arange(tokens, device=device).repeat(batch, 1)
        return self._all[key]

    def lowest(self, count: int, evaluation: int, *drawn: Any, device: torch.device | str | None = None) -> Tensor:
        """[batch, count] int64, ascending: the tokens of the lowest scores, of all that `scores_from` has to be told
        about an evaluation. A size that changes is first made for one evaluation, then for twice as many, and so on.
        """
        key = drawn, str(device)
        first, made = self._made.get(key, (evaluation, None))
        if made is None or made.shape[2] != count or not 0 <= evaluation - first < len(made):
            scores = self.scores_from(evaluation, *drawn)
            if made is not None:
                scores = scores[: 2 * len(made) if made.shape[2] == count else 1]
            found = _lowest(scores.flatten(0, 1), count).unflatten(0, scores.shape[:2])
            first, made = self._made[key] = evaluation, _moved(found, device)
        return made[evaluation - first]


def _moved(index: Tensor, device: torch.device | str | None) -> Tensor:
    """On a device; what a GPU is doing meanwhile is not waited for, which takes pinned memory."""
    if device is not None and torch.device(device).type == "cuda":
        return index.pin_memory().to(device, non_blocking=True)
    return index.to(device)


def _lowest(scores: Tensor, count: int) -> Tensor:
    """The places of the `count` lowest of each row of scores [R, tokens], ascending: [R, count]; 0 < count < tokens."""
    values = scores.numpy()
    chosen = values <= np.partition(values, count - 1, axis=1)[:, count - 1 : count]
    for row in np.flatnonzero(chosen.sum(axis=1) != count):  # equal scores, and not all of them are among the lowest
        chosen[row] = False
        chosen[row, scores[row].argsort()[:count].numpy()] = True
    places = np.flatnonzero(chosen).reshape(len(values), count)
    return torch.from_numpy(places - values.shape[1] * np.arange(len(values))[:, None])


@dataclass(frozen=True)
class Subsets:
    """Which tokens the branches of one evaluation keep. `exact` keeps T - int(T * gamma) tokens per sample
    (CompVis/tread). `bernoulli` keeps each token with probability 1 - gamma (arXiv 2601.01608, eq. 5); its count is
    drawn from the binomial once per evaluation, by the seed of the first sample, and shared by the samples and by
    branches of one gamma, so that a batch stays rectangular: here a sample keeps another number of tokens than alone.
    `structured` keeps as many as `exact`, evenly over the `grid` (Grid.scores): at gamma 0.75 one of
    every 2 x 2, as SPRINT is trained (arXiv 2510.21986). Tokens that lie on no known grid it keeps as `exact` does.
    ValueError for another selection.

    `factors` scale the rate of each route. Where more tokens have to `stay` than a rate keeps, the rate gives way."""

    orders: TokenOrders
    evaluation: int = 0
    selection: str = "exact"
    factors: tuple[float, ...] = ()
    stay: Staying | None = None
    grid: Grid | None = None

    def __post_init__(self):
        if self.selection not in SELECTIONS:
            raise ValueError(f"token selection '{self.selection}' is unknown; use one of {', '.join(SELECTIONS)}.")

    def at(self, evaluation: int) -> "Subsets":
        """Those of another evaluation of the same run."""
        return replace(self, evaluation=evaluation)

    def count(self, tokens: int, gamma: float, route: int = 0) -> int:
        """How many of `tokens` tokens are kept at sparsity rate `gamma`."""
        if self.factors:
            gamma = gamma * self.factors[route]
            if gamma > 1:
                raise ValueError(f"route number {route} scales the sparsity rate to {gamma:g}, which is over 1.")
        if self.selection == BERNOULLI:
            chances = torch.rand(tokens, generator=_generator(self.orders.seed, self.evaluation, route))
            kept = int((chances >= gamma).sum())
        else:
            kept = keep_count(tokens, gamma)
        return kept if self.stay is None else max(kept, self.stay.count)

    def draw(
        self,
        branch: int,
        batch: int,
        tokens: int,
        gamma: float,
        route: int = 0,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """The kept tokens of one branch in one route, ascending: [batch, K] int64."""
        count = self.count(tokens, gamma, route)
        if count == tokens:
            return self.orders.every(batch, tokens, device)
        if count == 0:
            return torch.empty(batch, 0, dtype=torch.int64, device=device)
        even = self.selection == STRUCTURED and self.grid is not None and self.grid.tokens == tokens
        drawn = branch, batch, tokens, route, self.stay, self.grid if even else None
        return self.orders.lowest(count, self.evaluation, *drawn, device=device)


def subsets(seed: int = 0, evaluation: int = 0, selection: str = "exact", ahead: int = 1) -> Subsets:
    """The kept tokens of a run from its seed; `ahead` is how many evaluations are expected."""
    return Subsets(TokenOrders(seed, ahead), evaluation, selection)
