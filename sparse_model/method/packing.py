"""Tokens of several branches side by side in one row: every linear layer is one product, attention keeps them apart."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Attention = Callable[..., Tensor]


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

    def attend(
        self, attention: Attention, q: Tensor, k: Tensor, v: Tensor, heads: int, bias: Tensor | None = None
    ) -> Tensor:
        """Self-attention within each segment: q, k, v [B, sum(lengths), heads * d], `bias` [B, sum(lengths)] on the
        logits of tokens -> the shape of q."""
        count = len(self.lengths)
        parts = (q, k, v) if bias is None else (q, k, v, bias)
        if count < 2:
            return _attend(attention, heads, *parts)
        if len(set(self.lengths)) == 1:  # segments of one length are as good as rows
            rows = (x.unflatten(1, (count, -1)).flatten(0, 1) for x in parts)
            return _attend(attention, heads, *rows).unflatten(0, (-1, count)).flatten(1, 2)
        segments = zip(*map(self.split, parts), strict=True)
        return torch.cat([_attend(attention, heads, *segment) for segment in segments], dim=1)

    def attend_to(
        self, attention: Attention, q: Tensor, k: Tensor, v: Tensor, heads: int, bias: Tensor | None = None
    ) -> Tensor:
        """Cross-attention: q [B, sum(lengths), heads * d], k and v [B, S or 1, M, heads * d], one context per segment
        or one for all, `bias` [B, S or 1, M] on its logits -> the shape of q."""
        queries = (q,) if k.shape[1] == 1 else self.split(q)
        biases = [None] * len(queries) if bias is None else bias.split(1, dim=1)
        parts = zip(queries, k.unbind(1), v.unbind(1), biases, strict=True)
        return joined([attention(q, k, v, heads, bias) for q, k, v, bias in parts])

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
        """Self-attention within each segment whose tokens also see a context: q, k, v [B, sum(lengths), heads * d],
        context_k and context_v [B, S or 1, M, heads * d], and `bias` [B, S or 1, M + at least a segment's length] on
        the logits of the context, 0 behind it -> the shape of q."""
        outputs = []
        for segment, (own_q, own_k, own_v) in enumerate(zip(*map(self.split, (q, k, v)), strict=True)):
            seen = segment if context_k.shape[1] > 1 else 0
            keys, values = torch.cat([context_k[:, seen], own_k], dim=1), torch.cat([context_v[:, seen], own_v], dim=1)
            outputs.append(attention(own_q, keys, values, heads, bias[:, seen : seen + 1, : keys.shape[1]]))
        return joined(outputs)


WHOLE = Packing()


def joined(segments: Sequence[Tensor]) -> Tensor:
    """[B, lengths[s], ...] of every segment -> [B, sum(lengths), ...]; one alone is not copied."""
    return segments[0] if len(segments) == 1 else torch.cat(segments, dim=1)


def _attend(attention: Attention, heads: int, q: Tensor, k: Tensor, v: Tensor, *bias: Tensor) -> Tensor:
    return attention(q, k, v, heads, *(own.unsqueeze(1) for own in bias))
