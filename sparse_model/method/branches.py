"""The branches of one evaluation: how sparse each is, which of them share an input, which tokens each keeps."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor, nn

from .grid import Grid
from .sparsity import Sparsity
from .token_mask import TokenMask
from .tokens import STRUCTURED, Subsets, keep_count, random_subset, subsets


@dataclass(frozen=True)
class Branch:
    """One prediction that a guided step needs, at sparsity rate `gamma` in [0, 1].

    Branches of one `condition` carry the same x, t and condition; None is an input of the branch's own. `index` decides
    which tokens are drawn. An `auxiliary` branch is evaluated by a second, weaker network.
    """

    gamma: float = 0.0
    index: int = 0
    condition: object = None
    auxiliary: bool = False


@dataclass(frozen=True)
class Prepared:
    """An evaluation whose kept tokens are drawn: nothing but numbers of rows and tensors of indices, so that a compiled
    network depends on nothing else.

    The batch is one equal chunk of rows per branch: chunk c carries the distinct input sources[c] and keeps the tokens
    kept[route][c], [B, K]. Without routes in `kept` it is dense.
    """

    sources: tuple[int, ...]
    kept: tuple[tuple[Tensor, ...], ...] = ()

    @property
    def sparse(self) -> bool:
        return len(self.kept) > 0

    def prepare(self, network: nn.Module, x: Tensor) -> "Prepared":
        return self

    def tokens(self, route: int, x: Tensor, where: Sequence[int]) -> tuple[Tensor, ...]:
        """The kept tokens [B, K] of every chunk, where x [R * B, T, D] enters a route; chunk c reads its block of rows
        where[c]."""
        return self.kept[route]

    def distinct(self, *values: Tensor) -> tuple[Tensor, ...]:
        """Every distinct input once: [N, ...] of all chunks -> [U * B, ...] each."""
        firsts = [self.sources.index(source) for source in range(max(self.sources) + 1)]
        return _chosen(values, firsts, len(self.sources))

    def expand(self, *values: Tensor) -> tuple[Tensor, ...]:
        """The other way: [U * B, ...] -> [N, ...] each, one chunk per branch."""
        return _chosen(values, self.sources, max(self.sources) + 1)


@dataclass(frozen=True)
class Evaluation:
    """One call of a network: its batch is one equal chunk of rows per branch, in order.

    `subsets` decides the kept tokens; None draws them from torch's global generator, on the network's device, as in
    training. Tokens under a `mask` are never left out.
    """

    branches: tuple[Branch, ...] = (Branch(),)
    subsets: Subsets | None = field(default_factory=subsets)
    mask: TokenMask | None = None

    @cached_property
    def sources(self) -> tuple[int, ...]:
        """For every chunk the number of the distinct input that it carries."""
        inputs = [(i, None) if branch.condition is None else branch.condition for i, branch in enumerate(self.branches)]
        numbers = {given: number for number, given in enumerate(dict.fromkeys(inputs))}
        return tuple(numbers[given] for given in inputs)

    @property
    def sparse(self) -> bool:
        return any(branch.gamma > 0 for branch in self.branches)

    def labelled(self, chunks: Sequence[int], inputs: Sequence[object]) -> "Evaluation":
        """The evaluation of a batch that a host has put together: chunk c answers branch chunks[c] and carries the
        input that inputs[c] identifies. A number beyond the branches counts as the first one, the strong."""
        known = [self.branches[chunk if chunk < len(self.branches) else 0] for chunk in chunks]
        named = zip(known, inputs, strict=True)
        return replace(self, branches=tuple(replace(b, condition=(b.condition, given)) for b, given in named))

    def placed(
        self, sparsity: Sparsity, depth: int, size: Sequence[int], patch: Sequence[int], part: slice = slice(None)
    ) -> "Evaluation":
        """The same in a network of `depth` layers with these routes and patches, over a latent [N, C, *size]; see
        `TokenMask.over`."""
        factors = sparsity.factors(depth)
        structured = self.subsets is not None and self.subsets.selection == STRUCTURED
        if self.subsets is None or not (factors or self.mask or structured):
            return self
        stay = self.mask and self.mask.over(size, patch, part)
        grid = Grid.of(size, patch, part) if structured and len(size) > 1 else None
        return replace(self, subsets=replace(self.subsets, factors=factors, stay=stay or self.subsets.stay, grid=grid))

    def of(self, sample: int) -> "Evaluation":
        """The same for one sample of a batch that runs on its own."""
        if self.subsets is None or sample == 0:
            return self
        return replace(self, subsets=replace(self.subsets, orders=self.subsets.orders.of(sample)))

    def draw(self, route: int, batch: int, tokens: int, device: torch.device | str | None) -> tuple[Tensor, ...]:
        """The kept tokens of every branch in one route: [batch, K] each."""
        if self.subsets is None:
            return tuple(random_subset(batch, tokens, keep_count(tokens, b.gamma), device) for b in self.branches)
        return tuple(self.subsets.draw(b.index, batch, tokens, b.gamma, route, device) for b in self.branches)

    def prepare(self, network: nn.Module, x: Tensor) -> Prepared:
        """The same evaluation with its tokens drawn for all routes of a network and its batch x [N, C, H, W]."""
        config = network.config
        batch, tokens = len(x) // len(self.branches), config.tokens(*x.shape[-2:])
        placed = self.placed(network.sparsity, config.depth, x.shape[2:], (config.patch_size,) * 2)
        return placed.drawn(network.sparsity.count, batch, tokens, x.device)

    def drawn(self, routes: int, batch: int, tokens: int, device: torch.device | str | None = None) -> Prepared:
        """The same with `batch` rows per chunk of `tokens` tokens each."""
        count = routes if self.sparse else 0
        return Prepared(self.sources, tuple(self.draw(route, batch, tokens, device) for route in range(count)))


DENSE = Evaluation()


def keep_text(evaluation: Prepared, tokens: int, words: int, alone: bool = True) -> Prepared:
    """The same for rows of `tokens` tokens of an image and `words` behind them of text, which every branch keeps; if
    not `alone`, then only a branch that keeps some of the image."""

    def with_text(kept: Tensor) -> Tensor:
        if not (alone or kept.shape[1]):
            return kept
        text = torch.arange(tokens, tokens + words, device=kept.device)
        return torch.cat([kept, text.expand(len(kept), -1)], dim=1)

    return Prepared(evaluation.sources, tuple(tuple(map(with_text, route)) for route in evaluation.kept))


def blocks(value: Tensor, which: Sequence[int], count: int, dim: int) -> Tensor:
    """Some of the `count` equal blocks of rows of a tensor, joined along a dimension."""
    parts = value.unflatten(0, (count, -1)).unbind(0)
    return parts[which[0]] if len(which) == 1 else torch.cat([parts[i] for i in which], dim=dim)


def _chosen(values: tuple[Tensor, ...], which: Sequence[int], count: int) -> tuple[Tensor, ...]:
    if list(which) == list(range(count)):
        return values
    return tuple(blocks(value, which, count, dim=0) for value in values)
