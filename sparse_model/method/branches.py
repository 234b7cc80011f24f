"""Evaluating several guidance branches of one network in one pass, each on its own kept tokens.

A batch has one equal chunk of rows per branch. Chunks with the same input are one until they keep different tokens;
inside a route the branches' kept tokens lie side by side in one row, so that every linear layer is a single product.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor, nn

from .sparsity import Sparsity
from .tokens import SubsetSeed, keep_count, put, random_subset, take

Layers = Sequence[nn.Module] | Sequence[Callable[..., Tensor]]
Attention = Callable[..., Tensor]


@dataclass(frozen=True)
class Branch:
    """What one chunk of a batch answers: guidance branch `index` at sparsity rate `gamma` in [0, 1].

    Chunks of one `source` carry the same x, t and condition; None is an input of the chunk's own.
    """

    gamma: float = 0.0
    index: int = 0
    source: object = None


@dataclass(frozen=True)
class Packing:
    """How the tokens of a row are divided among branches: segment s has lengths[s] of them; () is one whole segment."""

    lengths: tuple[int, ...] = ()

    def split(self, x: Tensor, dim: int = 1) -> tuple[Tensor, ...]:
        """[B, sum(lengths), ...] -> one [B, lengths[s], ...] per segment; the tokens may lie along another `dim`."""
        return x.split(self.lengths, dim) if self.lengths else (x,)

    def spread(self, values: Tensor) -> Tensor:
        """One value per segment, [B, S, ...], as one per token, [B, sum(lengths), ...]; one for all stays as it is."""
        if values.shape[1] == 1:
            return values
        parts = values.split(1, dim=1)
        repeated = [part.expand(-1, n, *part.shape[2:]) for part, n in zip(parts, self.lengths, strict=True)]
        return torch.cat(repeated, dim=1)

    def attend(self, attention: Attention, q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
        """Self-attention within each segment: q, k, v [B, sum(lengths), heads * d] -> the same shape."""
        count = len(self.lengths)
        if count < 2:
            return attention(q, k, v, heads)
        if len(set(self.lengths)) == 1:  # segments of one length are as good as rows
            q, k, v = (x.unflatten(1, (count, -1)).flatten(0, 1) for x in (q, k, v))
            return attention(q, k, v, heads).unflatten(0, (-1, count)).flatten(1, 2)
        parts = zip(*map(self.split, (q, k, v)), strict=True)
        return torch.cat([attention(*part, heads) for part in parts], dim=1)

    def attend_to(
        self, attention: Attention, q: Tensor, k: Tensor, v: Tensor, heads: int, bias: Tensor | None = None
    ) -> Tensor:
        """Cross-attention: q [B, sum(lengths), heads * d], k and v [B, S or 1, M, heads * d], one context per segment
        or one for all, `bias` [B, S or 1, M] on its logits -> the shape of q."""
        queries = (q,) if k.shape[1] == 1 else self.split(q)
        biases = [None] * len(queries) if bias is None else bias.split(1, dim=1)
        parts = zip(queries, k.unbind(1), v.unbind(1), biases, strict=True)
        return torch.cat([attention(q, k, v, heads, bias) for q, k, v, bias in parts], dim=1)

    def attend_with(
        self,
        attention: Attention,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        heads: int,
        context_k: Tensor,
        context_v: Tensor,
        bias: Tensor,
    ) -> Tensor:
        """Self-attention within each segment whose tokens see a context besides: q, k, v [B, sum(lengths), heads * d],
        context_k and context_v [B, S or 1, M, heads * d], and `bias` [B, S or 1, M] on the logits of the context -> the
        shape of q."""
        outputs = []
        for segment, (own_q, own_k, own_v) in enumerate(zip(*map(self.split, (q, k, v)), strict=True)):
            seen = segment if context_k.shape[1] > 1 else 0
            keys, values = torch.cat([context_k[:, seen], own_k], dim=1), torch.cat([context_v[:, seen], own_v], dim=1)
            logits = nn.functional.pad(bias[:, seen], (0, own_q.shape[1])).unsqueeze(1)  # [B, 1, M + length]
            outputs.append(attention(own_q, keys, values, heads, logits))
        return torch.cat(outputs, dim=1)


WHOLE = Packing()


class Chunks:
    """A batch of one chunk per branch; `sources[c]` numbers the distinct input that chunk c carries."""

    sources: tuple[int, ...]

    def choose(self, route: int, x: Tensor, where: Sequence[int] | None = None) -> tuple[Tensor, ...]:
        """The kept tokens [B, K] of every chunk, where x [R * B, T, D] enters a route; chunk c reads its block of rows
        where[c], or its source's. Which tokens they are may depend on x in a subclass only."""
        return self.subsets(route, len(x) // (max(where or self.sources) + 1), x.shape[1], x.device)

    def distinct(self, *values: Tensor) -> tuple[Tensor, ...]:
        """Every distinct input once: [N, ...] of all chunks -> [U * B, ...] each."""
        firsts = [self.sources.index(source) for source in range(max(self.sources) + 1)]
        return self._chosen(values, firsts, len(self.sources))

    def expand(self, *values: Tensor) -> tuple[Tensor, ...]:
        """The other way: [U * B, ...] -> [N, ...] each, one chunk per branch."""
        return self._chosen(values, self.sources, max(self.sources) + 1)

    @staticmethod
    def _chosen(values: tuple[Tensor, ...], which: Sequence[int], count: int) -> tuple[Tensor, ...]:
        if list(which) == list(range(count)):
            return values
        return tuple(_blocks(value, which, count, dim=0) for value in values)


@dataclass(frozen=True)
class Prepared(Chunks):
    """An evaluation whose kept tokens are drawn: nothing in it but numbers of rows and tensors of indices, so that a
    compiled network depends on nothing else. `kept[route][chunk]` is [B, K]."""

    sources: tuple[int, ...]
    kept: tuple[tuple[Tensor, ...], ...]

    @property
    def sparse(self) -> bool:
        return len(self.kept) > 0

    def subsets(self, route: int, batch: int, tokens: int, device: torch.device) -> tuple[Tensor, ...]:
        return self.kept[route]


@dataclass(frozen=True)
class Evaluation(Chunks):
    """One call of a network: its batch is one equal chunk per branch, in order.

    `seed` decides the kept tokens; None draws them from torch's global generator, on the network's device (training).
    """

    branches: tuple[Branch, ...] = (Branch(),)
    seed: SubsetSeed | None = field(default_factory=SubsetSeed)

    @cached_property
    def sources(self) -> tuple[int, ...]:
        labels = [(i, None) if branch.source is None else branch.source for i, branch in enumerate(self.branches)]
        numbers = {label: number for number, label in enumerate(dict.fromkeys(labels))}
        return tuple(numbers[label] for label in labels)

    @property
    def sparse(self) -> bool:
        return any(branch.gamma > 0 for branch in self.branches)

    def subsets(self, route: int, batch: int, tokens: int, device: torch.device) -> tuple[Tensor, ...]:
        """The kept tokens of every chunk in one route: [batch, K] each."""
        if self.seed is None:
            return tuple(random_subset(batch, tokens, keep_count(tokens, b.gamma), device) for b in self.branches)
        return tuple(self.seed.draw(b.index, batch, tokens, b.gamma, route, device) for b in self.branches)

    def prepare(self, sparsity: Sparsity, batch: int, tokens: int, device: torch.device) -> Prepared:
        """The same evaluation with its tokens drawn for all of a network's routes: `batch` rows a chunk."""
        routes = sparsity.count if self.sparse else 0
        return Prepared(self.sources, tuple(self.subsets(route, batch, tokens, device) for route in range(routes)))


DENSE = Evaluation()


def run_layers(
    layers: Layers,
    sparsity: Sparsity,
    evaluation: Evaluation | Prepared,
    x: Tensor,
    per_sample: Sequence[Tensor] = (),
    per_token: Sequence[Tensor] = (),
) -> tuple[Tensor, ...]:
    """x through all layers, routed as `sparsity` says, one row per distinct input in and one row per chunk out.

    x [U * B, T, D], per_sample [U * B, 1, ...], per_token [U * B or 1, T, ...] -> x [N, T, D], per_sample [N, 1, ...].
    A layer is called as layer(x, *per_sample, *per_token, packing). Inside a route x is [B, sum of kept, D], divided
    by `packing`, and a per_sample value has one entry for all segments or one for each; the tokens that a branch does
    not keep leave the route as they entered it.
    """
    where = None  # which block of rows a chunk is in, once chunks are apart
    for stretch, route in sparsity.stretches(len(layers)):
        if route is None or not evaluation.sparse:
            for i in stretch:
                x = layers[i](x, *per_sample, *per_token, WHOLE)
            continue
        kept = evaluation.choose(route, x, where)
        packed = _Packed(kept, where or evaluation.sources, x.shape[1])
        inside = packed.run([layers[i] for i in stretch], x, per_sample, per_token)
        if where is None:
            own = [value for value in per_token if len(value) > 1]
            x, *values = evaluation.expand(x, *per_sample, *own)
            per_sample, own = values[: len(per_sample)], iter(values[len(per_sample) :])
            per_token = [next(own) if len(value) > 1 else value for value in per_token]
            where = tuple(range(len(kept)))
        x = packed.put(x, inside)
        del inside, packed, kept  # the layers behind a route need the room
    return (x, *per_sample) if where else evaluation.expand(x, *per_sample)


def run_masked(
    layers: Layers,
    evaluation: Evaluation | Prepared,
    x: Tensor,
    fill: Tensor,
    per_sample: Sequence[Tensor] = (),
    per_token: Sequence[Tensor] = (),
) -> tuple[Tensor, ...]:
    """Each branch's kept tokens through all layers, and `fill` in the place of the others (arXiv 2601.01608, eq. 4).

    As `run_layers`, but for the other tokens: x [U * B, T, D], fill [1, 1, E] -> [N, T, E]; the layers may change the
    width from D to E.
    """
    if not evaluation.sparse:
        for layer in layers:
            x = layer(x, *per_sample, *per_token, WHOLE)
        return evaluation.expand(x, *per_sample)
    kept = evaluation.choose(0, x)
    packed = _Packed(kept, evaluation.sources, x.shape[1])
    inside = packed.run(layers, x, per_sample, per_token)
    filled = fill.to(x).expand(len(kept) * len(kept[0]), x.shape[1], -1)
    return packed.put(filled, inside), *evaluation.expand(*per_sample)


def _blocks(value: Tensor, which: Sequence[int], count: int, dim: int) -> Tensor:
    """Some of the `count` equal blocks of rows of a tensor, joined along a dimension."""
    blocks = value.unflatten(0, (count, -1)).unbind(0)
    return blocks[which[0]] if len(which) == 1 else torch.cat([blocks[i] for i in which], dim=dim)


class _Packed:
    """The kept tokens of all chunks, packed along the token axis.

    `kept` has [B, K] per chunk, `where` the block of rows in x that a chunk reads, rows have `tokens` tokens.
    """

    def __init__(self, kept: Sequence[Tensor], where: Sequence[int], tokens: int):
        self.live = [chunk for chunk, index in enumerate(kept) if index.shape[1]]
        self.packing = Packing(tuple(kept[chunk].shape[1] for chunk in self.live))
        self.where, self.kept, self.tokens = where, kept, tokens
        self.batch = len(kept[0])

    def run(
        self, layers: Layers, x: Tensor, per_sample: Sequence[Tensor], per_token: Sequence[Tensor]
    ) -> Tensor | None:
        """x [R, T, D] -> the packed tokens after all layers, [B, sum of kept, E]; None if no branch keeps any."""
        if not self.live:
            return None
        source = self._index([self.where[chunk] for chunk in self.live])
        within = torch.cat([self.kept[chunk] for chunk in self.live], dim=1)
        samples = [self._per_segment(value) for value in per_sample]
        tables = [take(value, source if len(value) > 1 else within) for value in per_token]
        h = take(x, source)
        for layer in layers:
            h = layer(h, *samples, *tables, self.packing)
        return h

    def put(self, x: Tensor, inside: Tensor | None) -> Tensor:
        """x [N, T, E] with the kept tokens of every chunk replaced by those that ran."""
        return x if inside is None else put(x, self._index(self.live), inside.to(x))

    def _index(self, blocks: Sequence[int]) -> Tensor:
        """[B, sum of kept]: tokens counted through all rows, segment s in block blocks[s]."""
        rows = torch.arange(self.batch, device=self.kept[0].device).unsqueeze(1) * self.tokens
        offsets = (block * self.batch * self.tokens for block in blocks)
        parts = [self.kept[chunk] + offset for chunk, offset in zip(self.live, offsets, strict=True)]
        return torch.cat(parts, dim=1) + rows

    def _per_segment(self, value: Tensor) -> Tensor:
        """[R, 1, ...] -> [B, 1, ...] if all segments read one block of rows, else [B, S, ...]."""
        blocks = [self.where[chunk] for chunk in self.live]
        if len(set(blocks)) == 1:
            blocks = blocks[:1]
        return _blocks(value, blocks, len(value) // self.batch, dim=1)
