"""Nitro-T 1.2B, a text-to-image transformer in which image and text are two streams of tokens that attend to one
another (Stable Diffusion 3.5's layers), trained on half of the image's tokens behind the first three layers.

The text changes from layer to layer as the image does, so every branch carries its own; no branch leaves any of its
tokens out. A token that the mask drops gets no prediction of its own: the network's output is 0 in its place.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..conditions.text import Text
from ..method.branches import DENSE, Evaluation, Prepared, keep_text
from ..method.packing import WHOLE, Packing, joined
from ..method.sparse_pass import run_layers, run_masked
from ..method.sparsity import Sparsity
from .layers import TORCH, Backend, PatchEmbed, modulate, unpatchify
from .nitro import FeedForward, NitroConfig, Time, positions, text_norm


@dataclass(frozen=True, kw_only=True)
class NitroMMDiTConfig(NitroConfig):
    """In the first `dual` layers the image attends to itself once more, without the text."""

    input_size: int = 32
    depth: int = 24
    heads: int = 18
    dual: int = 13


class NitroMMDiT(nn.Module):
    """`sparsity` is a mask behind the first `mixer_depth` layers, as trained, or routes over all layers."""

    def __init__(self, config: NitroMMDiTConfig, sparsity: Sparsity = Sparsity(), backend: Backend = TORCH):
        super().__init__()
        self.config, self.sparsity = config, sparsity
        width = config.width
        self.pos_embed = PatchEmbed(backend, config.in_channels, config.patch_size, width)
        self.time_text_embed = Time(backend, width)
        self.context_embedder = backend.linear(config.text_width, width)
        self.text_embedding_norm = text_norm(backend, width)
        self.transformer_blocks = nn.ModuleList(JointBlock(backend, config, layer) for layer in range(config.depth))
        self.norm_out = AdaNorm(backend, width, 2)
        self.proj_out = backend.linear(width, config.pixels)

    def forward(self, x: Tensor, t: Tensor, y: Text, evaluation: Evaluation | Prepared = DENSE) -> Tensor:
        """x [N, C, H, W], t [N] from 0 at the data to 1 at noise, y embeddings [N, M, text_width] (its mask is not
        used: the authors' network reads padding like the prompt) -> [N, C, H, W].

        A mask keeps T - int(T * gamma) tokens; the authors' training code keeps int(T * (1 - gamma)), one less where
        T * gamma is not whole.
        """
        evaluation = evaluation.prepare(self, x)
        x, t, embeddings = evaluation.distinct(x, t, y.embeddings)
        patch, mixer, words = self.config.patch_size, self.config.mixer_depth, embeddings.shape[1]
        height, length = x.shape[2] // patch, x.shape[3] // patch
        image = self.pos_embed(x) + positions(self.config, height, length, x)  # [U * B, T, D]
        text = self.text_embedding_norm(self.context_embedder(embeddings.to(x.dtype)))  # [U * B, M, D]
        h = torch.cat([image, text], dim=1)  # [U * B, T + M, D]
        c = F.silu(self.time_text_embed(t, x.dtype)).unsqueeze(1)  # [U * B, 1, D]
        blocks = [partial(block, words=words) for block in self.transformer_blocks]
        evaluation = keep_text(evaluation, height * length, words, alone=self.sparsity.mask is None)
        if self.sparsity.mask is None:
            h, c = run_layers(blocks, self.sparsity, evaluation, h, (c,))
            h = self.last(h, c)
        else:  # [U * B, T + M, D] -> K + M tokens through everything behind the mixer -> [N, T + M, pixels]
            for block in blocks[:mixer]:
                h = block(h, c)
            fill = h.new_zeros(1, 1, self.config.pixels)
            h, *_ = run_masked((*blocks[mixer:], self.last), evaluation, h, fill, (c,))
        return unpatchify(h[:, : height * length], height, length, patch)

    def last(self, x: Tensor, c: Tensor, packing: Packing = WHOLE) -> Tensor:
        """[B, K + M, D] -> [B, K + M, patch * patch * C], which means something for the image's tokens."""
        scale, shift = self.norm_out.modulation(c, packing)
        return self.proj_out(modulate(self.norm_out.norm(x), shift, 1 + scale))


@dataclass(frozen=True)
class Streams:
    """Which tokens of rows [B, sum(lengths), D] are of the image and which, `words` behind them in every segment, of
    the text."""

    packing: Packing
    words: int

    @property
    def image(self) -> Packing:
        return Packing(tuple(length - self.words for length in self.packing.lengths))

    @property
    def text(self) -> Packing:
        return Packing(tuple(self.words for _ in self.packing.lengths))

    def apart(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """[B, sum(K + M), D] -> [B, sum(K), D], [B, sum(M), D]."""
        segments = self.packing.split(x)
        images, texts = zip(*(segment.tensor_split((-self.words,), dim=1) for segment in segments), strict=True)
        return joined(images), joined(texts)

    def together(self, image: Tensor, text: Tensor) -> Tensor:
        """The other way."""
        pairs = zip(self.image.split(image), self.text.split(text), strict=True)
        return torch.cat([part for pair in pairs for part in pair], dim=1)


class JointBlock(nn.Module):
    """Both streams attend to all tokens of both, each by weights of its own, then pass an MLP. The text of the last
    layer is only looked at."""

    def __init__(self, backend: Backend, config: NitroMMDiTConfig, layer: int):
        super().__init__()
        width, hidden, last, dual = config.width, config.hidden, layer == config.depth - 1, layer < config.dual
        self.norm1 = AdaNorm(backend, width, 9 if dual else 6)
        self.norm1_context = AdaNorm(backend, width, 2 if last else 6)
        self.attn = JointAttention(backend, width, config.heads, last)
        self.attn2 = SelfAttention(backend, width, config.heads) if dual else None
        self.norm2 = backend.norm(width)
        self.ff = FeedForward(backend, width, hidden)
        if not last:
            self.norm2_context = backend.norm(width)
            self.ff_context = FeedForward(backend, width, hidden)
        self.reads_only = last

    def forward(self, x: Tensor, c: Tensor, packing: Packing = WHOLE, *, words: int) -> Tensor:
        """x [B, sum of K + M, D], c [B, 1 or segments, D] -> the shape of x; M is `words`."""
        streams = Streams(packing, words)
        image, text = streams.apart(x)
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m, *again = self.norm1.modulation(c, streams.image)
        normed = self.norm1.norm(image)
        own = self.norm1_context.modulation(c, streams.text)
        if self.reads_only:
            scale, shift = own
        else:
            shift, scale, text_gate_a, text_shift_m, text_scale_m, text_gate_m = own
        h = modulate(normed, shift_a, 1 + scale_a), modulate(self.norm1_context.norm(text), shift, 1 + scale)
        seen, read = self.attn(*h, streams)
        image = torch.addcmul(image, gate_a, seen)
        if self.attn2 is not None:
            shift_a, scale_a, gate_a = again
            image = torch.addcmul(image, gate_a, self.attn2(modulate(normed, shift_a, 1 + scale_a), streams.image))
        image = torch.addcmul(image, gate_m, self.ff(modulate(self.norm2(image), shift_m, 1 + scale_m)))
        if not self.reads_only:
            text = torch.addcmul(text, text_gate_a, read)
            h = modulate(self.norm2_context(text), text_shift_m, 1 + text_scale_m)
            text = torch.addcmul(text, text_gate_m, self.ff_context(h))
        return streams.together(image, text)


class AdaNorm(nn.Module):
    """A norm, and `parts` tensors that modulate it and what follows."""

    def __init__(self, backend: Backend, width: int, parts: int):
        super().__init__()
        self.norm, self.parts = backend.norm(width), parts
        self.linear = backend.linear(width, parts * width)

    def modulation(self, c: Tensor, packing: Packing) -> list[Tensor]:
        """c [B, 1 or segments, D] behind its activation -> [B, 1 or tokens, D] each."""
        return [packing.spread(part) for part in self.linear(c).chunk(self.parts, dim=-1)]


class SelfAttention(nn.Module):
    """Attention with RMS-normalised queries and keys."""

    def __init__(self, backend: Backend, width: int, heads: int):
        super().__init__()
        self.heads, self.attend = heads, backend.attention
        self.to_q, self.to_k, self.to_v = (backend.linear(width, width) for _ in range(3))
        self.norm_q, self.norm_k = (backend.rms_norm(width // heads) for _ in range(2))
        self.to_out = nn.ModuleList([backend.linear(width, width)])

    def forward(self, x: Tensor, packing: Packing) -> Tensor:
        """Among the tokens of each segment [B, sum(lengths), D]; a segment may have none."""
        some = Packing(tuple(length for length in packing.lengths if length))
        if packing.lengths and not some.lengths:
            return torch.zeros_like(x)
        q, k = self.normed(self.to_q(x), self.norm_q), self.normed(self.to_k(x), self.norm_k)
        return self.to_out[0](some.attend(self.attend, q, k, self.to_v(x), self.heads))

    def normed(self, x: Tensor, norm: Callable[[Tensor], Tensor]) -> Tensor:
        """Each head of [B, K, D]."""
        return norm(x.unflatten(-1, (self.heads, -1))).flatten(2)


class JointAttention(SelfAttention):
    def __init__(self, backend: Backend, width: int, heads: int, last: bool):
        super().__init__(backend, width, heads)
        self.add_q_proj, self.add_k_proj, self.add_v_proj = (backend.linear(width, width) for _ in range(3))
        self.norm_added_q, self.norm_added_k = (backend.rms_norm(width // heads) for _ in range(2))
        self.to_add_out = None if last else backend.linear(width, width)

    def forward(self, image: Tensor, text: Tensor, streams: Streams) -> tuple[Tensor, Tensor]:
        """What each stream [B, sum(K), D] and [B, sum(M), D] takes from the tokens of both in its segment."""
        q = self.normed(self.to_q(image), self.norm_q), self.normed(self.add_q_proj(text), self.norm_added_q)
        k = self.normed(self.to_k(image), self.norm_k), self.normed(self.add_k_proj(text), self.norm_added_k)
        q, k, v = (streams.together(*both) for both in (q, k, (self.to_v(image), self.add_v_proj(text))))
        image, text = streams.apart(streams.packing.attend(self.attend, q, k, v, self.heads))
        return self.to_out[0](image), text if self.to_add_out is None else self.to_add_out(text)
