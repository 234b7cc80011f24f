"""A slow way to drop tokens: they stay, hidden from attention, and are put back after each block."""

import contextlib
import functools
import sys
from collections.abc import Iterator
from typing import Any

import torch
from cases import Case, tokens_of
from torch import Tensor
from zoo import Animal, blocks_of


class Reference:
    """An unrouted model made to run one branch with routed tokens hidden from it, one layer after another."""

    def __init__(self, network: torch.nn.Module, case: Case, animal: Animal, layers: range, kept: Tensor):
        self.network, self.animal, self.layers = network, animal, layers
        self.size, self.path = case.size or tokens_of(animal), kept.shape[1] > 0
        self.before, self.text = case.before, 0 if case.behind else animal.text if case.text is None else case.text
        self.hidden = torch.ones(animal.latent[0], self.size, dtype=torch.bool).scatter(1, kept, False)  # [B, T]
        self.inside, self.entry = False, None

    def places(self, length: int, joint: bool) -> Tensor | None:
        """Which tokens of a sequence are hidden, [B, length]; None if it has no image tokens."""
        start = self.before + (self.text if joint else 0)
        if length < self.size + start:
            return None
        mask = torch.zeros(len(self.hidden), length, dtype=torch.bool)
        mask[:, start : start + self.size] = self.hidden
        return mask

    def hides(self, queries: int, keys: int) -> bool:
        """Whether an attention of so many is one to the image tokens."""
        return queries == keys

    def attention(self, original: Any, q: Tensor, k: Tensor, v: Tensor, heads: int, *args: Any, **kwargs: Any) -> Any:
        """The host's attention, in which nobody sees the hidden tokens."""
        skip = kwargs.get("skip_reshape", False)  # [B, heads, L, d] instead of [B, L, heads * d] or [B, L, heads, d]
        axis = 2 if skip else 1
        length = k.shape[axis]
        joint = length >= self.size + self.before + self.text
        mask = self.places(length, joint) if self.inside and self.hides(q.shape[axis], length) else None
        if mask is None:
            return original(q, k, v, heads, *args, **kwargs)
        own = kwargs.pop("mask", args[0] if args else None)
        bias = torch.zeros(len(mask), 1, 1, mask.shape[1]).masked_fill(mask[:, None, None], -torch.inf)
        if own is not None:
            bias = bias + (own if own.ndim == 4 else own.unsqueeze(-3))
        if not skip:
            q, k, v = (t.reshape(*t.shape[:2], heads, -1).transpose(1, 2) for t in (q, k, v))
        out = torch.nn.functional.scaled_dot_product_attention(q.float(), k.float(), v.float(), attn_mask=bias).to(v)
        return out if kwargs.get("skip_output_reshape", False) else out.transpose(1, 2).flatten(2)

    def flat(self, tokens: Any) -> Tensor:
        """What a block is given or returns as its tokens, [N, L, D], in the same memory."""
        return tokens.flatten(1, -2)

    def skipped(self, place: int | None, tokens: Tensor, *given: Any) -> Any:
        """What a block returns that is left out."""
        streams = [value for value in given if isinstance(value, Tensor) and value.ndim == 3]
        text = next((stream for stream in streams if stream is not tokens), None)
        return tokens if place is None else (tokens, text) if place == 0 else (text, tokens)

    def block(self, original: Any, place: int | None, name: str, layer: int, *args: Any, **kwargs: Any) -> Any:
        tokens = kwargs[name] if name in kwargs else args[place or 0]
        mask = self.places(self.flat(tokens).shape[1], joint=place is None)
        if layer == self.layers.start:
            self.entry = self.flat(tokens)[mask].clone()
        self.inside = layer in self.layers
        if self.inside and not self.path:
            output = self.skipped(place, tokens, *args, *kwargs.values())
        else:
            output = original(*args, **kwargs)
        if self.inside:
            self.flat(output if place is None else output[place])[mask] = self.entry  # of a contiguous tensor
        self.inside = False
        return output

    @contextlib.contextmanager
    def hiding(self) -> Iterator[None]:
        replaced, layer = [], 0
        for module in [m for name, m in sys.modules.items() if name.startswith("comfy.ldm.")]:
            for name in ("optimized_attention", "optimized_attention_masked"):
                if hasattr(module, name):
                    replaced.append((module, name, getattr(module, name)))
                    setattr(module, name, functools.partial(self.attention, getattr(module, name)))
        for path, (tokens, place) in self.animal.blocks.items():
            for block in blocks_of(self.network, path):
                block.forward = functools.partial(self.block, type(block).forward.__get__(block), place, tokens, layer)
                layer += 1
        try:
            yield
        finally:
            for owner, name, value in replaced:
                setattr(owner, name, value)
            for path in self.animal.blocks:
                for block in blocks_of(self.network, path):
                    del block.forward


class RowsInside(Reference):
    """Blocks over [T, H, W, N, D]."""

    def flat(self, tokens: Tensor) -> Tensor:
        return tokens.movedim(3, 0).flatten(1, -2)


class NoRows(Reference):
    """Blocks over [L, D], and attention that is handed containers of tensors."""

    def flat(self, tokens: Tensor) -> Tensor:
        return tokens.unsqueeze(0)

    def attention(self, original: Any, *given: Any, **kwargs: Any) -> Any:
        tensors = [
            value.take() if hasattr(value, "take") and not isinstance(value, Tensor) else value for value in given
        ]
        return super().attention(original, *tensors, **kwargs)


class WithSound(Reference):
    """Blocks over (video, sound) in one argument, which they overwrite, and attention of the sound to the video."""

    def flat(self, tokens: Any) -> Tensor:
        return tokens[0] if isinstance(tokens, tuple) else tokens

    def skipped(self, place: int | None, tokens: Any, *given: Any) -> Any:
        return tokens

    def hides(self, queries: int, keys: int) -> bool:
        return keys == self.size
