"""Token subsets: how many tokens a sparsity rate keeps, which ones, and how to take them out and put them back."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

SELECTIONS = ("exact", "bernoulli")


def keep_count(tokens: int, gamma: float) -> int:
    """Tokens kept out of `tokens` at sparsity rate `gamma` in [0, 1]: T - int(T * gamma), as TREAD counts them."""
    return tokens - int(tokens * gamma)


def gather(x: Tensor, index: Tensor) -> Tensor:
    """Take tokens out: x [B or 1, T, ...], index [B, K] -> [B, K, ...]. Works for anything indexed by token."""
    if x.shape[0] != index.shape[0]:
        x = x.expand(index.shape[0], *x.shape[1:])
    index = index.reshape(*index.shape, *(1,) * (x.ndim - 2)).expand(-1, -1, *x.shape[2:])
    return x.gather(1, index)


def scatter(x: Tensor, index: Tensor, kept: Tensor) -> Tensor:
    """Put tokens back: a copy of x [B, T, ...] in which the tokens index [B, K] are replaced by kept [B, K, ...]."""
    index = index.reshape(*index.shape, *(1,) * (x.ndim - 2)).expand_as(kept)
    return x.scatter(1, index, kept)


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
    """

    seed: int = 0
    evaluation: int = 0
    selection: str = "exact"

    def draw(self, branch: int, batch: int, tokens: int, gamma: float, route: int = 0) -> Tensor:
        """The kept tokens of one branch, ascending: [batch, K] int64 on the CPU.

        `exact` keeps T - int(T * gamma) tokens per sample (CompVis/tread). `bernoulli` keeps each token with
        probability 1 - gamma (arXiv 2601.01608, eq. 5); its count is drawn from the binomial once per evaluation
        and shared by the samples and by branches of one gamma, so that a batch stays rectangular.
        """
        if self.selection not in SELECTIONS:
            raise ValueError(f"token selection '{self.selection}' is unknown; use one of {', '.join(SELECTIONS)}.")
        keep = keep_count(tokens, gamma)
        if self.selection == "bernoulli":
            count = torch.rand(tokens, generator=_generator(self.seed, self.evaluation, route))
            keep = int((count >= gamma).sum())
        scores = torch.stack([
            torch.rand(tokens, generator=_generator(self.seed + i, self.evaluation, branch, route, 1))
            for i in range(batch)
        ])  # fmt: skip
        return scores.argsort(dim=1)[:, :keep].sort(dim=1).values
