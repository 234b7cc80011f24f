"""SR-DiT, SPRINT's routing around a class token that is denoised with the picture (arXiv 2512.12386).

Keys are those of SwayStar123/SpeedrunDiT checkpoints. The class token is a feature vector of the whole picture
(DINOv2's) with noise and a velocity of its own. It travels in further channels of the input, so that every sampler
denoises it as it does the latent. The values of the first layer's attention are mixed into those of all others.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..method.branches import DENSE, Evaluation, Prepared
from ..method.packing import WHOLE, Packing
from ..method.sparse_pass import run_layers, run_masked
from ..method.sparsity import Sparsity
from .layers import (
    TORCH,
    AdaLNLinear,
    Backend,
    LabelEmbedder,
    Mlp,
    PatchEmbed,
    RotaryAttention,
    TimestepEmbedder,
    TransformerConfig,
    modulate,
    modulation,
    modulations,
    unpatchify,
)
from .positions import rotary_positions, rotate, sincos_like
from .sprint import SprintConfig


@dataclass(frozen=True)
class SRDiTConfig(TransformerConfig):
    """`depth` layers in the middle, between `encoder_depth` and `decoder_depth` layers that see every token. The last
    `class_channels` of the input hold a class token of `class_width` numbers."""

    SIZES: ClassVar = SprintConfig.SIZES
    input_size: int = 16
    patch_size: int = 1
    in_channels: int = 35
    width: int = 768
    depth: int = 8
    heads: int = 12
    encoder_depth: int = 2
    decoder_depth: int = 2
    class_width: int = 768
    class_channels: int = 3


class SRDiT(nn.Module):
    """`sparsity` is a mask around the middle, as trained, or routes over the middle's layers."""

    def __init__(self, config: SRDiTConfig, sparsity: Sparsity = Sparsity(), backend: Backend = TORCH):
        super().__init__()
        self.config, self.sparsity = config, sparsity
        width, patch = config.width, config.patch_size
        channels = config.in_channels - config.class_channels
        self.x_embedder = PatchEmbed(backend, channels, patch, width)
        self.t_embedder = TimestepEmbedder(backend, width)
        self.y_embedder = LabelEmbedder(backend, config.num_classes, width)
        self.cls_projectors2 = backend.linear(config.class_width, width)
        self.wg_norm = backend.rms_norm(width)
        self.pos_embed = backend.parameter(1, 1 + config.grid**2, width)
        layers = config.encoder_depth + config.depth + config.decoder_depth
        self.blocks = nn.ModuleList(Block(backend, config, first=i == 0) for i in range(layers))
        self.mask_token = backend.parameter(1, 1, width).requires_grad_()
        self.fusion_proj = backend.linear(2 * width, width)
        self.final_layer = FinalLayer(backend, width, patch**2 * channels, config.class_width)

    def forward(self, x: Tensor, t: Tensor, y: Tensor, evaluation: Evaluation | Prepared = DENSE) -> Tensor:
        """x [N, C, H, W], t [N], y [N, classes] -> [N, C, H, W], class token included. ValueError if the picture is so
        small that its class channels cannot hold that."""
        evaluation = with_class_token(evaluation.prepare(self, x))
        x, t, y = evaluation.distinct(x, t, y)
        patch, size = self.config.patch_size, x.shape[2:]
        height, length = (side // patch for side in size)
        picture, token = self.parts(x)
        positions = rotary_positions(height, length, self.config.width // self.config.heads, x.device)
        positions = torch.cat([positions[:, :1], positions], dim=1)  # in row 0 and column 0 nothing is turned
        c = F.silu(self.t_embedder(t, x.dtype) + self.y_embedder(y).to(x.dtype)).unsqueeze(1)  # [U * B, 1, D]
        token = self.wg_norm(self.cls_projectors2(token)).unsqueeze(1)
        shallow = torch.cat([token, self.x_embedder(picture)], dim=1)  # [U * B, 1 + T, D]
        shallow = shallow + self.positions(height, length, shallow)

        start, stop = self.config.encoder_depth, self.config.encoder_depth + self.config.depth
        shallow, values = self.blocks[0].with_values(shallow, c, positions)
        for layer in self.blocks[1:start]:
            shallow = layer(shallow, c, positions, values, WHOLE)
        middle, per_token = self.blocks[start:stop], (positions, values)
        if self.sparsity.mask is None:
            deep, c = run_layers(middle, self.sparsity, evaluation, shallow, (c,), per_token)
        else:  # [U * B, 1 + T, D] -> the kept tokens through the middle -> [N, 1 + T, D]
            deep, c = run_masked(middle, evaluation, shallow, self.mask_token, (c,), per_token)
        shallow, values = evaluation.expand(shallow, values)
        h = self.fusion_proj(torch.cat([shallow, deep], dim=-1))
        for layer in self.blocks[stop:]:
            h = layer(h, c, positions, values, WHOLE)
        token, picture = self.final_layer(h, c)
        return self.whole(unpatchify(picture, height, length, patch), token, size)

    def parts(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x [N, C, H, W] -> the latent [N, C - class_channels, H, W] and the class token [N, class_width]."""
        count, width = self.config.class_channels, self.config.class_width
        if count * x.shape[2] * x.shape[3] < width:
            raise ValueError(
                f"The latent of {x.shape[3]} x {x.shape[2]} is too small: this model keeps a class token of {width} "
                f"numbers in {count} of its channels; use the size that it was trained at, or a larger one."
            )
        return x[:, :-count], x[:, -count:].flatten(1)[:, :width]

    def whole(self, picture: Tensor, token: Tensor, size: torch.Size) -> Tensor:
        """The other way round; what the token does not fill of its channels is 0."""
        count = self.config.class_channels
        filled = F.pad(token, (0, count * size[0] * size[1] - token.shape[1]))
        return torch.cat([picture, filled.unflatten(1, (count, *size))], dim=1)

    def positions(self, height: int, length: int, x: Tensor) -> Tensor:
        """[1, 1 + height * length, D]: the checkpoint's own table at its own size, computed for any other."""
        grid = self.config.grid
        if height == length == grid:
            return self.pos_embed.to(x)
        return F.pad(sincos_like(x, self.config.width, height, length, grid), (0, 0, 1, 0))


def with_class_token(evaluation: Prepared) -> Prepared:
    """The class token is token 0 in front of the picture's: it runs with whatever a branch keeps of them, and with none
    of them it does not run (Path-Drop Guidance)."""
    kept = tuple(
        tuple(F.pad(index + 1, (1, 0)) if index.shape[1] else index for index in chunks) for chunks in evaluation.kept
    )
    return Prepared(evaluation.sources, kept)


class Norm(nn.Module):
    """RMS norm without weights: x [..., D] -> the same."""

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, x.shape[-1:], eps=1e-6)


class Attention(RotaryAttention):
    """Rotary self-attention whose values are mixed with those of the first layer (value residual, arXiv 2410.17897)."""

    def __init__(self, backend: Backend, width: int, heads: int, first: bool):
        super().__init__(backend, width, heads)
        for norm in (self.q_norm, self.k_norm):
            norm.eps = torch.finfo(torch.float32).eps  # PyTorch's own, as in training
        if not first:
            self.v1_lambda = backend.parameter().requires_grad_()

    def forward(
        self, x: Tensor, positions: Tensor, values: Tensor | None = None, packing: Packing = WHOLE
    ) -> tuple[Tensor, Tensor]:
        """x [B, T, D], the first layer's values [B, T, D] (None in it) -> its output and its own values."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).unbind(2)  # [B, T, heads, d]
        q, k, v = (
            rotate(self.q_norm(q), positions).flatten(2),
            rotate(self.k_norm(k), positions).flatten(2),
            v.flatten(2),
        )
        mixed = v if values is None else torch.lerp(v, values, self.v1_lambda.to(v))
        return self.proj(packing.attend(self.attend, q, k, mixed, self.heads)), v


class Block(nn.Module):
    """A DiT block with adaLN-Zero around RMS norms, which knows the first block's values."""

    def __init__(self, backend: Backend, config: SRDiTConfig, first: bool):
        super().__init__()
        width = config.width
        self.norm = Norm()
        self.attn = Attention(backend, width, config.heads, first)
        self.mlp = Mlp(backend, width, int(width * config.mlp_ratio))
        self.adaLN_modulation = modulation(backend, width, 6 * width)

    def forward(self, x: Tensor, c: Tensor, positions: Tensor, values: Tensor | None, packing: Packing) -> Tensor:
        """x [B, T, D], c [B, 1 or segments, D], values [B, T, D] -> [B, T, D]."""
        return self.with_values(x, c, positions, values, packing)[0]

    def with_values(
        self, x: Tensor, c: Tensor, positions: Tensor, values: Tensor | None = None, packing: Packing = WHOLE
    ) -> tuple[Tensor, Tensor]:
        """The same, and the values of its own attention."""
        parts = map(packing.spread, modulations(self.adaLN_modulation(c)))
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = parts
        attended, own = self.attn(modulate(self.norm(x), shift_a, scale_a), positions, values, packing)
        x = torch.addcmul(x, gate_a, attended)
        return torch.addcmul(x, gate_m, self.mlp(modulate(self.norm(x), shift_m, scale_m))), own


class FinalLayer(AdaLNLinear):
    """x [B, 1 + T, D], c [B, 1, D] -> the class token [B, class_width] and the picture's tokens [B, T, outputs]."""

    def __init__(self, backend: Backend, width: int, outputs: int, class_width: int):
        super().__init__(backend, width, outputs, width)
        self.norm = Norm()
        self.linear_cls = backend.linear(width, class_width)

    def forward(self, x: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        shift, scale = self.adaLN_modulation(c).chunk(2, dim=-1)
        x = modulate(self.norm(x), shift, 1 + scale)
        return self.linear_cls(x[:, 0]), self.linear(x[:, 1:])
