"""DiT and SiT, class-conditional diffusion transformers (arXiv 2212.09748, 2401.08740), with TREAD routes.

Keys are those of facebookresearch/DiT, SiT and CompVis/tread checkpoints.
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from ..method.branches import DENSE, Evaluation, Prepared
from ..method.sparse_pass import run_layers
from ..method.sparsity import Sparsity
from .layers import (
    TORCH,
    AdaLNBlock,
    AdaLNLinear,
    Backend,
    LabelEmbedder,
    PatchEmbed,
    TimestepEmbedder,
    TransformerConfig,
    unpatchify,
)
from .positions import table_or_sincos


@dataclass(frozen=True)
class DiTConfig(TransformerConfig):
    learn_sigma: bool = False


class DiT(nn.Module):
    def __init__(self, config: DiTConfig, sparsity: Sparsity = Sparsity(), backend: Backend = TORCH):
        super().__init__()
        self.config, self.sparsity = config, sparsity
        width, patch = config.width, config.patch_size
        self.x_embedder = PatchEmbed(backend, config.in_channels, patch, width)
        self.t_embedder = TimestepEmbedder(backend, width)
        self.y_embedder = LabelEmbedder(backend, config.num_classes, width)
        self.pos_embed = backend.parameter(1, config.grid**2, width)
        self.blocks = nn.ModuleList(
            AdaLNBlock(backend, width, config.heads, config.mlp_ratio, width) for _ in range(config.depth)
        )
        outputs = config.in_channels * (2 if config.learn_sigma else 1)
        self.final_layer = AdaLNLinear(backend, width, patch**2 * outputs, width)

    def forward(self, x: Tensor, t: Tensor, y: Tensor, evaluation: Evaluation | Prepared = DENSE) -> Tensor:
        """x [N, C, H, W], t [N], y [N, classes] -> [N, C, H, W]; a learned variance is dropped."""
        evaluation = evaluation.prepare(self, x)
        x, t, y = evaluation.distinct(x, t, y)
        patch, channels = self.config.patch_size, x.shape[1]
        height, length = x.shape[2] // patch, x.shape[3] // patch
        h = self.x_embedder(x) + table_or_sincos(self.pos_embed, height, length, self.config.grid, x)  # [U * B, T, D]
        c = F.silu(self.t_embedder(t, x.dtype) + self.y_embedder(y).to(x.dtype)).unsqueeze(1)  # [U * B, 1, D]
        h, c = run_layers(self.blocks, self.sparsity, evaluation, h, per_sample=(c,))  # [N, T, D]
        return unpatchify(self.final_layer(h, c), height, length, patch)[:, :channels]
