"""SPRINT, a diffusion transformer whose deep middle sees only part of the tokens (arXiv 2510.21986).

Keys are those of snap-research/Sprint checkpoints. At gamma 1 the middle does not run at all, which with the null
condition is the weak branch of its Path-Drop Guidance.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..method.branches import DENSE, Evaluation, Prepared
from ..method.packing import WHOLE
from ..method.sparse_pass import run_layers, run_masked
from ..method.sparsity import Sparsity
from .layers import (
    TORCH,
    AdaLNBlock,
    AdaLNLinear,
    Backend,
    GatedMlp,
    LabelEmbedder,
    RotaryAttention,
    TimestepEmbedder,
    TransformerConfig,
    patchify,
    unpatchify,
)
from .positions import rotary_positions


@dataclass(frozen=True)
class SprintConfig(TransformerConfig):
    """`depth` layers in the middle, between `encoder_depth` and `decoder_depth` layers that see every token."""

    SIZES: ClassVar = {name: (sizes[0], sizes[1] - 4, sizes[2]) for name, sizes in TransformerConfig.SIZES.items()}
    depth: int = 24
    encoder_depth: int = 2
    decoder_depth: int = 2
    swiglu: bool = False


class Tokens(nn.Module):
    """[B, T, C * patch * patch] -> [B, T, D]."""

    def __init__(self, backend: Backend, inputs: int, width: int):
        super().__init__()
        self.proj = backend.linear(inputs, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x)


class Sprint(nn.Module):
    """`sparsity` is a mask around the middle, as trained, or routes over the middle's layers."""

    def __init__(self, config: SprintConfig, sparsity: Sparsity = Sparsity(), backend: Backend = TORCH):
        super().__init__()
        self.config, self.sparsity = config, sparsity
        width, pixels = config.width, config.patch_size**2 * config.in_channels
        self.x_embedder = Tokens(backend, pixels, width)
        self.t_embedder = TimestepEmbedder(backend, width)
        self.y_embedder = LabelEmbedder(backend, config.num_classes, width)
        self.encoder_blocks = nn.ModuleList(block(backend, config) for _ in range(config.encoder_depth))
        self.middle_blocks = nn.ModuleList(block(backend, config) for _ in range(config.depth))
        self.mask_token = backend.parameter(1, 1, width).requires_grad_()
        self.renoise_linear = backend.linear(2 * width, width)
        self.decoder_blocks = nn.ModuleList(block(backend, config) for _ in range(config.decoder_depth))
        self.final_layer = AdaLNLinear(backend, width, pixels, width)

    def forward(self, x: Tensor, t: Tensor, y: Tensor, evaluation: Evaluation | Prepared = DENSE) -> Tensor:
        """x [N, C, H, W], t [N], y [N, classes] -> [N, C, H, W]."""
        evaluation = evaluation.prepare(self, x)
        x, t, y = evaluation.distinct(x, t, y)
        patch = self.config.patch_size
        height, length = x.shape[2] // patch, x.shape[3] // patch
        positions = rotary_positions(height, length, self.config.width // self.config.heads, x.device)
        c = F.silu(self.t_embedder(t, x.dtype) + self.y_embedder(y).to(x.dtype)).unsqueeze(1)  # [U * B, 1, D]
        shallow = self.x_embedder(patchify(x, patch))  # [U * B, T, D]
        for layer in self.encoder_blocks:
            shallow = layer(shallow, c, positions, WHOLE)
        if self.sparsity.mask is None:
            deep, c = run_layers(self.middle_blocks, self.sparsity, evaluation, shallow, (c,), (positions,))
        else:  # [U * B, T, D] -> K tokens through the middle -> [N, T, D]
            deep, c = run_masked(self.middle_blocks, evaluation, shallow, self.mask_token, (c,), (positions,))
        h = self.renoise_linear(torch.cat([deep, *evaluation.expand(shallow)], dim=-1))
        for layer in self.decoder_blocks:
            h = layer(h, c, positions, WHOLE)
        return unpatchify(self.final_layer(h, c), height, length, patch, "c p q")


def block(backend: Backend, config: SprintConfig) -> AdaLNBlock:
    width, hidden = config.width, int(config.width * config.mlp_ratio)
    attention = RotaryAttention(backend, width, config.heads)
    gated = GatedMlp(backend, width, hidden, ("fc1_g", "fc1_x", "fc2"), bias=True) if config.swiglu else None
    return AdaLNBlock(backend, width, config.heads, config.mlp_ratio, width, attention, gated)
