"""Token subsets: how many tokens a sparsity rate keeps, which ones, and how to take them out and put them back."""

import math
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

SELECTIONS = ("exact", "bernoulli")
COMPARED = (*SELECTIONS, "nested", "fixed", "stratified")
"""What `SubsetSeed` can draw. The last three are there to be measured (docs/results.md); nodes offer SELECTIONS."""


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
    state = np.random.SeedSequence([number % 2**64 for number in key]).generate_state(1, np.uint64)
    return torch.Generator("cpu").manual_seed(int(state[0]) >> 1)


@dataclass(frozen=True)
class SubsetSeed:
    """What decides which tokens one evaluation of a model keeps.

    Drawn on the CPU from (seed, evaluation, branch, route) alone, so the same tokens are kept on every device and
    however a host splits the branches over calls. Sample i of a batch uses `seed + i`, the same as a batch of one
    with that seed (of a Bernoulli subset the same order of tokens; their count is the batch's).

    A run of known length draws `ahead` evaluations at once and keeps them on the device in `drawn`, which all its
    evaluations (`at`) share: nothing is uploaded in the middle of a step.
    """

    seed: int = 0
    evaluation: int = 0
    selection: str = "exact"
    ahead: int = field(default=1, compare=False)
    drawn: dict[tuple, tuple[int, Tensor]] = field(default_factory=dict, compare=False, repr=False)

    def at(self, evaluation: int) -> "SubsetSeed":
        """The same run's seed at another evaluation."""
        return replace(self, evaluation=evaluation)

    def draw(
        self,
        branch: int,
        batch: int,
        tokens: int,
        gamma: float,
        route: int = 0,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """The kept tokens of one branch, ascending: [batch, K] int64.

        `exact` keeps T - int(T * gamma) tokens per sample (CompVis/tread). `bernoulli` keeps each token with
        probability 1 - gamma (arXiv 2601.01608, eq. 5); its count is drawn from the binomial once per evaluation
        and shared by the samples and by branches of one gamma, so that a batch stays rectangular. As exact, but:
        `nested` keeps in a sparser branch a part of what a denser one keeps; `fixed` keeps the same tokens in every
        evaluation; `stratified` spreads them evenly over a square grid.
        """
        if self.selection not in COMPARED:
            raise ValueError(f"token selection '{self.selection}' is unknown; use one of {', '.join(SELECTIONS)}.")
        keep = keep_count(tokens, gamma)
        if self.selection == "bernoulli":
            count = torch.rand(tokens, generator=_generator(self.seed, self.evaluation, route))
            keep = int((count >= gamma).sum())
        return self.order(branch, batch, tokens, route, device)[:, :keep].sort(dim=1).values

    def order(
        self, branch: int, batch: int, tokens: int, route: int = 0, device: torch.device | str | None = None
    ) -> Tensor:
        """The order in which tokens are kept, [batch, tokens]: a subset of any size is its beginning."""
        key = branch, batch, tokens, route, str(device)
        first, orders = self.drawn.get(key, (self.evaluation, None))
        if orders is None or not 0 <= self.evaluation - first < len(orders):
            first = self.evaluation
            scores = torch.stack([
                self._scores(self.seed + i, evaluation, branch, tokens, route)
                for evaluation in range(first, first + self.ahead)
                for i in range(batch)
            ])  # fmt: skip
            orders = scores.argsort(dim=1).reshape(self.ahead, batch, tokens).to(device)
            self.drawn[key] = first, orders
        return orders[self.evaluation - first]

    def _scores(self, seed: int, evaluation: int, branch: int, tokens: int, route: int) -> Tensor:
        """One number in [0, 1) per token; the lowest are kept."""
        branch = 0 if self.selection == "nested" else branch
        evaluation = 0 if self.selection == "fixed" else evaluation
        generator = _generator(seed, evaluation, branch, route, 1)
        if self.selection != "stratified":
            return torch.rand(tokens, generator=generator)
        # a randomly shifted additive recurrence in two dimensions: tokens of similar scores lie far apart
        place, side = torch.arange(tokens), max(math.isqrt(tokens), 1)
        lattice = (place % side) * 0.7548776662466927 + (place // side) * 0.5698402909980532
        return (lattice.double() + torch.rand((), generator=generator, dtype=torch.float64)) % 1
