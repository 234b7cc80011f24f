"""Evaluating several guidance branches of one network in one batch, each on its own kept tokens."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import torch
from torch import Tensor, nn

from .sparsity import Sparsity
from .tokens import SubsetSeed, gather, keep_count, random_subset, scatter


@dataclass(frozen=True)
class Branch:
    """What one chunk of a batch answers: guidance branch `index` at sparsity rate `gamma` in [0, 1].

    `source` labels the chunk's inputs: chunks of equal source carry the same x, t and condition.
    """

    gamma: float = 0.0
    index: int = 0
    source: object = None


@dataclass(frozen=True)
class Evaluation:
    """One call of a network: its batch is one equal chunk per branch, in order.

    `seed` decides the kept tokens; None draws them from torch's global generator, on the network's device (training).
    """

    branches: tuple[Branch, ...] = (Branch(),)
    seed: SubsetSeed | None = field(default_factory=SubsetSeed)

    @property
    def sparse(self) -> bool:
        return any(branch.gamma > 0 for branch in self.branches)

    def subsets(self, x: Tensor, route: int = 0) -> Iterator[tuple[slice, Tensor]]:
        """(rows of the batch, their kept tokens [rows, K]) for x [N, T, D]; neighbours of one gamma come together."""
        size, tokens = x.shape[0] // len(self.branches), x.shape[1]
        start = 0
        for gamma, group in groupby(self.branches, key=lambda branch: branch.gamma):
            index = torch.cat([self._draw(branch, size, tokens, gamma, route, x.device) for branch in group])
            yield slice(start, start + len(index)), index
            start += len(index)

    def _draw(self, branch: Branch, batch: int, tokens: int, gamma: float, route: int, device) -> Tensor:
        if self.seed is None:
            return random_subset(batch, tokens, keep_count(tokens, gamma), device)
        return self.seed.draw(branch.index, batch, tokens, gamma, route).to(device)


DENSE = Evaluation()


def run_layers(
    layers: Sequence[nn.Module] | Sequence[Callable],
    sparsity: Sparsity,
    evaluation: Evaluation,
    x: Tensor,
    per_sample: Sequence[Tensor] = (),
    per_token: Sequence[Tensor] = (),
) -> Tensor:
    """x through all layers, each called as layer(x, *per_sample, *per_token), routed as `sparsity` says.

    x [N, T, D], per_sample [N, ...], per_token [N or 1, T, ...] -> [N, T, D]. Inside a route every branch runs on its
    kept tokens and whatever is indexed by them; the other tokens leave the route as they entered it.
    """
    for stretch, route in sparsity.stretches(len(layers)):
        if route is None or not evaluation.sparse:
            for i in stretch:
                x = layers[i](x, *per_sample, *per_token)
            continue
        parts = []
        for rows, index in evaluation.subsets(x, route):
            part, samples = x[rows], [value[rows] for value in per_sample]
            if index.shape[1]:
                kept = gather(part, index)  # [n, T, D] -> [n, K, D]
                tokens = [gather(value[rows] if len(value) > 1 else value, index) for value in per_token]
                for i in stretch:
                    kept = layers[i](kept, *samples, *tokens)
                part = scatter(part, index, kept)
            parts.append(part)
        x = torch.cat(parts)
    return x


def run_masked(
    layers: Sequence[nn.Module] | Sequence[Callable],
    evaluation: Evaluation,
    x: Tensor,
    fill: Tensor,
    per_sample: Sequence[Tensor] = (),
) -> Tensor:
    """Each branch's kept tokens through all layers, and `fill` in the place of the others (arXiv 2601.01608, eq. 4).

    x [N, T, D], fill [1, 1, E], per_sample [N, ...] -> [N, T, E]; the layers may change the width from D to E.
    """
    if not evaluation.sparse:
        for layer in layers:
            x = layer(x, *per_sample)
        return x
    parts = []
    for rows, index in evaluation.subsets(x):
        part, samples = fill.to(x).expand(len(index), x.shape[1], -1), [value[rows] for value in per_sample]
        if index.shape[1]:
            kept = gather(x[rows], index)  # [n, T, D] -> [n, K, D]
            for layer in layers:
                kept = layer(kept, *samples)
            part = scatter(part.to(kept), index, kept)
        parts.append(part)
    return torch.cat(parts)
