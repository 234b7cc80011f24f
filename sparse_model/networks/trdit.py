"""TR-DiT, the 2.5B text-to-image transformer of "Guiding Token-Sparse Diffusion Models" (arXiv 2601.01608, appendix).

Its weights are not public: the network is here for arithmetic, timing and training. Where the paper is silent, this
follows PixArt-alpha (arXiv 2310.00426): one modulation by time for all blocks, which a table of each block shifts.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..conditions.text import Text
from ..method.branches import DENSE, Evaluation, Prepared
from ..method.packing import WHOLE, Packing
from ..method.sparse_pass import run_layers
from ..method.sparsity import Sparsity
from .layers import TORCH, Backend, GatedMlp, GridConfig, TimestepEmbedder, modulate, modulations, patchify, unpatchify
from .positions import rotary_positions, turned

GATED = ("gate", "up", "down")


@dataclass(frozen=True)
class TRDiTConfig(GridConfig):
    """The published sizes, for 512 x 512 pixels; the text comes from InternVL3-2B."""

    input_size: int = 64
    in_channels: int = 16
    width: int = 2048
    depth: int = 34
    heads: int = 16
    mlp_ratio: float = 43 / 16  # 8 / 3, up to a multiple of 64 channels: 5,461 leave rows unaligned, which GPUs pay for
    text_width: int = 1536
    text_depth: int = 2


class SelfAttention(nn.Module):
    def __init__(self, backend: Backend, width: int, heads: int):
        super().__init__()
        self.heads, self.attend = heads, backend.attention
        self.qkv = backend.linear(width, 3 * width, bias=False)
        self.proj = backend.linear(width, width, bias=False)

    def forward(self, x: Tensor, positions: Tensor, packing: Packing = WHOLE) -> Tensor:
        """x [B, K, D], positions [B or 1, K, 1, d / 2, 2] -> [B, K, D]."""
        q, k, v = turned(self.qkv(x), self.heads, positions)
        return self.proj(packing.attend(self.attend, q, k, v, self.heads))


class CrossAttention(nn.Module):
    def __init__(self, backend: Backend, width: int, heads: int):
        super().__init__()
        self.heads, self.attend = heads, backend.attention
        self.q = backend.linear(width, width, bias=False)
        self.kv = backend.linear(width, 2 * width, bias=False)
        self.proj = backend.linear(width, width, bias=False)

    def forward(self, x: Tensor, text: Tensor, bias: Tensor, packing: Packing = WHOLE) -> Tensor:
        """x [B, K, D], text [B, 1 or segments, M, D] with bias [B, 1 or segments, M] on its logits -> [B, K, D]."""
        k, v = self.kv(text).chunk(2, dim=-1)
        return self.proj(packing.attend_to(self.attend, self.q(x), k, v, self.heads, bias))


class TextBlock(nn.Module):
    """A layer of the transformer that adapts the text: text [B, M, D], bias [B, 1, M] -> [B, M, D]."""

    def __init__(self, backend: Backend, width: int, heads: int, hidden: int):
        super().__init__()
        self.heads, self.attend = heads, backend.attention
        self.norm1, self.norm2 = backend.rms_norm(width), backend.rms_norm(width)
        self.qkv = backend.linear(width, 3 * width, bias=False)
        self.proj = backend.linear(width, width, bias=False)
        self.mlp = GatedMlp(backend, width, hidden, GATED)

    def forward(self, text: Tensor, bias: Tensor) -> Tensor:
        text = text + self.proj(self.attend(*self.qkv(self.norm1(text)).chunk(3, dim=-1), self.heads, bias))
        return text + self.mlp(self.norm2(text))


class TRDiTBlock(nn.Module):
    def __init__(self, backend: Backend, width: int, heads: int, hidden: int):
        super().__init__()
        self.norm1, self.norm2, self.norm3 = (backend.rms_norm(width) for _ in range(3))
        self.attn = SelfAttention(backend, width, heads)
        self.cross = CrossAttention(backend, width, heads)
        self.mlp = GatedMlp(backend, width, hidden, GATED)
        self.table = backend.parameter(6, width).requires_grad_()

    def forward(
        self, x: Tensor, c: Tensor, text: Tensor, bias: Tensor, positions: Tensor, packing: Packing = WHOLE
    ) -> Tensor:
        """x [B, K, D], c [B, 1 or segments, 6 * D], and what the attentions take -> [B, K, D]."""
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = modulations(c + self.table.to(c).flatten())
        each = packing.spread
        h = modulate(self.norm1(x), each(shift_a), each(scale_a))
        x = torch.addcmul(x, each(gate_a), self.attn(h, positions, packing))
        x = x + self.cross(self.norm2(x), text, bias, packing)
        return torch.addcmul(x, each(gate_m), self.mlp(modulate(self.norm3(x), each(shift_m), each(scale_m))))


class TRDiT(nn.Module):
    """`sparsity` is a route over the blocks, r_{2->30} in the paper; text tokens are never left out."""

    def __init__(self, config: TRDiTConfig, sparsity: Sparsity = Sparsity(), backend: Backend = TORCH):
        super().__init__()
        self.config, self.sparsity = config, sparsity
        width, heads, hidden = config.width, config.heads, int(config.width * config.mlp_ratio)
        pixels = config.patch_size**2 * config.in_channels
        self.x_embedder = backend.linear(pixels, width, bias=False)
        self.t_embedder = TimestepEmbedder(backend, width)
        self.t_modulation = nn.Sequential(nn.SiLU(), backend.linear(width, 6 * width))
        self.text_in = backend.linear(config.text_width, width, bias=False)
        self.text_blocks = nn.ModuleList(TextBlock(backend, width, heads, hidden) for _ in range(config.text_depth))
        self.blocks = nn.ModuleList(TRDiTBlock(backend, width, heads, hidden) for _ in range(config.depth))
        self.norm = backend.rms_norm(width)
        self.table = backend.parameter(2, width).requires_grad_()
        self.final = backend.linear(width, pixels, bias=False)

    def forward(self, x: Tensor, t: Tensor, y: Text, evaluation: Evaluation | Prepared = DENSE) -> Tensor:
        """x [N, C, H, W], t [N], y of N prompts -> [N, C, H, W]."""
        evaluation = evaluation.prepare(self, x)
        x, t, embeddings, mask = evaluation.distinct(x, t, *y)
        patch, dtype = self.config.patch_size, x.dtype
        height, length = x.shape[2] // patch, x.shape[3] // patch
        positions = rotary_positions(height, length, self.config.width // self.config.heads, x.device)
        bias = torch.zeros(mask.shape, dtype=dtype, device=x.device).masked_fill(~mask, torch.finfo(dtype).min)
        bias = bias.unsqueeze(1)  # [U * B, 1, M]
        text = self.text_in(embeddings.to(dtype))  # [U * B, M, D]
        for block in self.text_blocks:
            text = block(text, bias)
        time = self.t_embedder(t, dtype).unsqueeze(1)  # [U * B, 1, D]
        c = self.t_modulation(time)  # [U * B, 1, 6 * D]
        h = self.x_embedder(patchify(x, patch))  # [U * B, T, D]
        samples = c, text.unsqueeze(1), bias
        h, *_ = run_layers(self.blocks, self.sparsity, evaluation, h, samples, (positions,))  # [N, T, D]
        (time,) = evaluation.expand(time)
        shift, scale = (time.unsqueeze(2) + self.table.to(time)).unbind(2)  # [N, 1, D]
        return unpatchify(self.final(modulate(self.norm(h), shift, 1 + scale)), height, length, patch, "c p q")
