"""MaskDiT, a diffusion transformer whose encoder sees only part of the tokens (arXiv 2306.09305).

Keys are those of Anima-Lab/MaskDiT checkpoints, without the `model.` of their EDM wrapper.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from ..method.branches import DENSE, Evaluation, Prepared
from ..method.sparse_pass import run_layers, run_masked
from ..method.sparsity import Sparsity
from .layers import (
    TORCH,
    AdaLNBlock,
    AdaLNLinear,
    Backend,
    LabelProjection,
    PatchEmbed,
    TimestepEmbedder,
    TransformerConfig,
    unpatchify,
)
from .positions import table_or_sincos


@dataclass(frozen=True)
class MaskDiTConfig(TransformerConfig):
    SIZES: ClassVar = {**TransformerConfig.SIZES, "H": (1280, 32, 16)}  # of the encoder; one decoder serves all of them
    decoder_width: int = 512
    decoder_depth: int = 8
    decoder_heads: int = 16


class MaskDiT(nn.Module):
    """`sparsity` is a mask in front of the encoder, as trained, or routes over the encoder's layers."""

    def __init__(self, config: MaskDiTConfig, sparsity: Sparsity = Sparsity(), backend: Backend = TORCH):
        super().__init__()
        self.config, self.sparsity = config, sparsity
        width, narrow, patch, ratio = config.width, config.decoder_width, config.patch_size, config.mlp_ratio
        self.x_embedder = PatchEmbed(backend, config.in_channels, patch, width)
        self.t_embedder = TimestepEmbedder(backend, width)
        self.y_embedder = LabelProjection(backend, config.num_classes, width)
        self.pos_embed = backend.parameter(1, config.grid**2, width)
        self.blocks = nn.ModuleList(AdaLNBlock(backend, width, config.heads, ratio, width) for _ in range(config.depth))
        self.decoder_layer = AdaLNLinear(backend, width, narrow, width)
        self.mask_token = backend.parameter(1, 1, narrow).requires_grad_()
        self.decoder_pos_embed = backend.parameter(1, config.grid**2, narrow)
        self.decoder_blocks = nn.ModuleList(
            AdaLNBlock(backend, narrow, config.decoder_heads, ratio, width) for _ in range(config.decoder_depth)
        )
        self.final_layer = AdaLNLinear(backend, narrow, patch**2 * config.in_channels, width)

    def forward(self, x: Tensor, t: Tensor, y: Tensor, evaluation: Evaluation | Prepared = DENSE) -> Tensor:
        """x [N, C, H, W], t [N], y [N, classes] -> [N, C, H, W].

        A mask keeps T - int(T * gamma) tokens; the authors' training code keeps int(T * (1 - gamma)), one less where
        T * gamma is not whole.
        """
        evaluation = evaluation.prepare(self, x)
        x, t, y = evaluation.distinct(x, t, y)
        patch, grid = self.config.patch_size, self.config.grid
        height, length = x.shape[2] // patch, x.shape[3] // patch
        h = self.x_embedder(x) + table_or_sincos(self.pos_embed, height, length, grid, x)  # [U * B, T, D]
        c = F.silu(self.t_embedder(t, x.dtype) + self.y_embedder(y.to(x.dtype))).unsqueeze(1)  # [U * B, 1, D]
        if self.sparsity.mask is None:
            h, c = run_layers(self.blocks, self.sparsity, evaluation, h, per_sample=(c,))
            h = self.decoder_layer(h, c)
        else:  # [U * B, T, D] -> K tokens through the encoder -> [N, T, decoder D]
            h, c = run_masked((*self.blocks, self.decoder_layer), evaluation, h, self.mask_token, per_sample=(c,))
        h = h + table_or_sincos(self.decoder_pos_embed, height, length, grid, x)
        for block in self.decoder_blocks:
            h = block(h, c)
        return unpatchify(self.final_layer(h, c), height, length, patch)
