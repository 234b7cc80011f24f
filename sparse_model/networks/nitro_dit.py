"""Nitro-T 0.6B, a text-to-image transformer whose image tokens look at the text (PixArt's layers), trained on half of
its tokens behind the first three layers.

A token that the mask drops gets no prediction of its own: the network's output is 0 in its place.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..conditions.text import Text
from ..method.branches import DENSE, Evaluation, Prepared
from ..method.packing import WHOLE, Packing
from ..method.sparse_pass import run_layers, run_masked
from ..method.sparsity import Sparsity
from .layers import TORCH, Backend, PatchEmbed, modulate, unpatchify
from .nitro import FeedForward, NitroConfig, Time, positions, text_norm


@dataclass(frozen=True, kw_only=True)
class NitroDiTConfig(NitroConfig):
    depth: int = 28
    heads: int = 16


class NitroDiT(nn.Module):
    """`sparsity` is a mask behind the first `mixer_depth` layers, as trained, or routes over all layers."""

    def __init__(self, config: NitroDiTConfig, sparsity: Sparsity = Sparsity(), backend: Backend = TORCH):
        super().__init__()
        self.config, self.sparsity = config, sparsity
        width = config.width
        self.pos_embed = PatchEmbed(backend, config.in_channels, config.patch_size, width)
        self.adaln_single = nn.ModuleDict({"emb": Time(backend, width), "linear": backend.linear(width, 6 * width)})
        self.caption_projection = nn.ModuleDict(
            {"linear_1": backend.linear(config.text_width, width), "linear_2": backend.linear(width, width)}
        )
        self.text_embedding_norm = text_norm(backend, width)
        self.transformer_blocks = nn.ModuleList(Block(backend, config) for _ in range(config.depth))
        self.scale_shift_table = backend.parameter(2, width).requires_grad_()
        self.norm_out = backend.norm(width)
        self.proj_out = backend.linear(width, config.pixels)

    def forward(self, x: Tensor, t: Tensor, y: Text, evaluation: Evaluation | Prepared = DENSE) -> Tensor:
        """x [N, C, H, W], t [N] from 0 at the data to 1 at noise, y of N prompts -> [N, C, H, W].

        A mask keeps T - int(T * gamma) tokens; the authors' training code keeps int(T * (1 - gamma)), one less where
        T * gamma is not whole.
        """
        evaluation = evaluation.prepare(self, x)
        x, t, embeddings, mask = evaluation.distinct(x, t, *y)
        patch, mixer = self.config.patch_size, self.config.mixer_depth
        height, length = x.shape[2] // patch, x.shape[3] // patch
        h = self.pos_embed(x) + positions(self.config, height, length, x)  # [U * B, T, D]
        text = self.read(embeddings.to(x.dtype)).unsqueeze(1)  # [U * B, 1, M, D]
        bias = torch.zeros_like(text[..., 0]).masked_fill(~mask.bool().unsqueeze(1), torch.finfo(x.dtype).min)
        samples = (self.modulation(t, x.dtype), text, bias)
        if self.sparsity.mask is None:
            h, *samples = run_layers(self.transformer_blocks, self.sparsity, evaluation, h, samples)
            h = self.last(h, *samples)
        else:  # [U * B, T, D] -> K tokens through everything behind the mixer -> [N, T, patch * patch * C]
            for block in self.transformer_blocks[:mixer]:
                h = block(h, *samples)
            layers = (*self.transformer_blocks[mixer:], self.last)
            h, *_ = run_masked(layers, evaluation, h, h.new_zeros(1, 1, self.config.pixels), samples)
        return unpatchify(h, height, length, patch)

    def modulation(self, t: Tensor, dtype: torch.dtype) -> Tensor:
        """t [B] -> [B, 1, 7, D]: shift, scale and gate of attention and of the MLP of every block, and the time itself,
        which modulates the output."""
        embedded = self.adaln_single["emb"](t, dtype)
        each = self.adaln_single["linear"](F.silu(embedded)).unflatten(1, (6, -1))
        return torch.cat([each, embedded.unsqueeze(1)], dim=1).unsqueeze(1)

    def read(self, embeddings: Tensor) -> Tensor:
        """[B, M, text_width] -> [B, M, D]."""
        first, second = self.caption_projection.values()
        return self.text_embedding_norm(second(F.gelu(first(embeddings), approximate="tanh")))

    def last(self, x: Tensor, c: Tensor, text: Tensor, bias: Tensor, packing: Packing = WHOLE) -> Tensor:
        """[B, K, D] -> [B, K, patch * patch * C]."""
        shift, scale = packing.spread(self.scale_shift_table.to(c) + c[:, :, 6:]).unbind(2)
        return self.proj_out(modulate(self.norm_out(x), shift, 1 + scale))


class Block(nn.Module):
    """Self-attention, attention to the text, MLP; all blocks are modulated alike but for a table of their own (adaLN
    single, arXiv 2310.00426)."""

    def __init__(self, backend: Backend, config: NitroDiTConfig):
        super().__init__()
        width, heads = config.width, config.heads
        self.scale_shift_table = backend.parameter(6, width).requires_grad_()
        self.norm1 = backend.norm(width)
        self.attn1 = Attention(backend, width, heads)
        self.attn2 = Attention(backend, width, heads)
        self.norm2 = backend.norm(width)
        self.ff = FeedForward(backend, width, config.hidden)

    def forward(self, x: Tensor, c: Tensor, text: Tensor, bias: Tensor, packing: Packing = WHOLE) -> Tensor:
        """x [B, K, D], c [B, 1 or segments, 7, D], text [B, 1 or segments, M, D] with bias [B, 1 or segments, M] on
        its logits -> [B, K, D]."""
        parts = packing.spread(self.scale_shift_table.to(c) + c[:, :, :6])
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = parts.unbind(2)
        x = torch.addcmul(x, gate_a, self.attn1.among(modulate(self.norm1(x), shift_a, 1 + scale_a), packing))
        x = x + self.attn2.to_text(x, text, bias, packing)
        return torch.addcmul(x, gate_m, self.ff(modulate(self.norm2(x), shift_m, 1 + scale_m)))


class Attention(nn.Module):
    """Among the tokens of each segment, or from them to a text."""

    def __init__(self, backend: Backend, width: int, heads: int):
        super().__init__()
        self.heads, self.attend = heads, backend.attention
        self.to_q, self.to_k, self.to_v = (backend.linear(width, width) for _ in range(3))
        self.to_out = nn.ModuleList([backend.linear(width, width)])

    def among(self, x: Tensor, packing: Packing) -> Tensor:
        q, k, v = self.to_q(x), self.to_k(x), self.to_v(x)
        return self.to_out[0](packing.attend(self.attend, q, k, v, self.heads))

    def to_text(self, x: Tensor, text: Tensor, bias: Tensor, packing: Packing) -> Tensor:
        q, k, v = self.to_q(x), self.to_k(text), self.to_v(text)
        return self.to_out[0](packing.attend_to(self.attend, q, k, v, self.heads, bias))
