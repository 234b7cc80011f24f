"""Several branches through the layers of a network in one pass, each on its own kept tokens.

A batch has one equal chunk of rows per branch. Chunks of one input stay one until they keep different tokens; inside a
route the kept tokens of all branches are packed along the token axis.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ..once import made_once
from .branches import Prepared, blocks
from .packing import WHOLE, Packing, joined
from .sparsity import Sparsity
from .tokens import put, take

Layers = Sequence[nn.Module] | Sequence[Callable[..., Tensor]]


def run_layers(
    layers: Layers,
    sparsity: Sparsity,
    evaluation: Prepared,
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
        kept = evaluation.tokens(route, x, where or evaluation.sources)
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
    evaluation: Prepared,
    x: Tensor,
    fill: Tensor,
    per_sample: Sequence[Tensor] = (),
    per_token: Sequence[Tensor] = (),
) -> tuple[Tensor, ...]:
    """Each branch's kept tokens through all layers, and `fill` in place of the others (arXiv 2601.01608, eq. 4).

    As `run_layers`, but for the other tokens: x [U * B, T, D], fill [1, 1, E] -> [N, T, E]; the layers may change the
    width from D to E.
    """
    if not evaluation.sparse:
        for layer in layers:
            x = layer(x, *per_sample, *per_token, WHOLE)
        return evaluation.expand(x, *per_sample)
    kept = evaluation.tokens(0, x, evaluation.sources)
    packed = _Packed(kept, evaluation.sources, x.shape[1])
    inside = packed.run(layers, x, per_sample, per_token)
    filled = fill.to(x).expand(len(kept) * len(kept[0]), x.shape[1], -1)
    return packed.put(filled, inside), *evaluation.expand(*per_sample)


class _Packed:
    """The kept tokens of all chunks, packed along the token axis.

    `kept` has [B, K] per chunk, `where` the block of rows in x that a chunk reads, rows have `tokens` tokens.
    """

    def __init__(self, kept: Sequence[Tensor], where: Sequence[int], tokens: int):
        self.live = [chunk for chunk, index in enumerate(kept) if index.shape[1]]
        self.packing = Packing(tuple(kept[chunk].shape[1] for chunk in self.live))
        self.where, self.batch, self.tokens = where, len(kept[0]), tokens
        self.within = joined([kept[chunk] for chunk in self.live]) if self.live else None

    def run(
        self, layers: Layers, x: Tensor, per_sample: Sequence[Tensor], per_token: Sequence[Tensor]
    ) -> Tensor | None:
        """x [R, T, D] -> the packed tokens after all layers, [B, sum of kept, E]; None if no branch keeps any."""
        if not self.live:
            return None
        source = self._index([self.where[chunk] for chunk in self.live])
        samples = [self._per_segment(value) for value in per_sample]
        tables = [take(value, source if len(value) > 1 else self.within) for value in per_token]
        h = take(x, source)
        for layer in layers:
            h = layer(h, *samples, *tables, self.packing)
        return h

    def put(self, x: Tensor, inside: Tensor | None) -> Tensor:
        """x [N, T, E] with the kept tokens of every chunk replaced by those that ran."""
        return x if inside is None else put(x, self._index(self.live), inside.to(x))

    def _index(self, places: Sequence[int]) -> Tensor:
        """[B, sum of kept]: tokens counted through all rows, segment s in block places[s]."""
        return self.within + _starts(self.packing.lengths, tuple(places), self.batch, self.tokens, self.within.device)

    def _per_segment(self, value: Tensor) -> Tensor:
        """[R, 1, ...] -> [B, 1, ...] if all segments read one block of rows, else [B, S, ...]."""
        read = [self.where[chunk] for chunk in self.live]
        if len(set(read)) == 1:
            read = read[:1]
        return blocks(value, read, len(value) // self.batch, dim=1)


@made_once
def _starts(lengths: tuple[int, ...], places: tuple[int, ...], batch: int, tokens: int, device: torch.device) -> Tensor:
    """[batch, sum(lengths)]: where the row of each packed token starts, segment s in block places[s] of `batch` rows of
    `tokens` tokens."""
    rows = torch.arange(batch, device=device).unsqueeze(1)
    starts = [((place * batch + rows) * tokens).expand(-1, n) for n, place in zip(lengths, places, strict=True)]
    return torch.cat(starts, dim=1)
