"""MDTv2, a diffusion transformer whose U-shaped encoder sees part of the tokens; a side-interpolater guesses the others
before all of them pass the decoder (arXiv 2303.14389).

Keys are those of sail-sg/MDT checkpoints. The encoder is one layer of a route's count, the decoder's follow.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..method.branches import DENSE, Evaluation, Prepared
from ..method.packing import WHOLE, Packing, joined
from ..method.sparse_pass import run_layers, run_masked
from ..method.sparsity import Sparsity
from ..once import made_once
from .layers import (
    TORCH,
    AdaLNBlock,
    AdaLNLinear,
    Backend,
    GridConfig,
    LabelEmbedder,
    PatchEmbed,
    TimestepEmbedder,
    unpatchify,
)


@dataclass(frozen=True, kw_only=True)
class MDTConfig(GridConfig):
    """The sizes of MDTv2-XL/2. `depth` counts the encoder, which has `half` layers on the way in and as many on the way
    out, and the decoder's layers."""

    width: int = 1152
    depth: int = 5
    heads: int = 16
    mlp_ratio: float = 4.0
    num_classes: int = 1000
    half: int = 12
    learn_sigma: bool = True


class MDT(nn.Module):
    """`sparsity` is a mask in front of the encoder, as trained, or routes over the encoder and the decoder's layers."""

    def __init__(self, config: MDTConfig, sparsity: Sparsity = Sparsity(), backend: Backend = TORCH):
        super().__init__()
        self.config, self.sparsity = config, sparsity
        width, patch = config.width, config.patch_size
        self.x_embedder = PatchEmbed(backend, config.in_channels, patch, width)
        self.t_embedder = TimestepEmbedder(backend, width)
        self.y_embedder = LabelEmbedder(backend, config.num_classes, width)
        self.pos_embed = backend.parameter(1, config.grid**2, width).requires_grad_()
        self.en_inblocks = nn.ModuleList(Block(backend, config) for _ in range(config.half))
        self.en_outblocks = nn.ModuleList(SkipBlock(backend, config) for _ in range(config.half))
        self.de_blocks = nn.ModuleList(SkipBlock(backend, config) for _ in range(config.depth - 1))
        self.sideblocks = nn.ModuleList([Block(backend, config)])
        self.decoder_pos_embed = backend.parameter(1, config.grid**2, width).requires_grad_()
        self.mask_token = backend.parameter(1, 1, width).requires_grad_()
        outputs = config.in_channels * (2 if config.learn_sigma else 1)
        self.final_layer = AdaLNLinear(backend, width, patch**2 * outputs, width)

    def forward(self, x: Tensor, t: Tensor, y: Tensor, evaluation: Evaluation | Prepared = DENSE) -> Tensor:
        """x [N, C, H, W], t [N], y [N, classes] -> [N, C, H, W]; a learned variance is dropped.

        A mask keeps T - int(T * gamma) tokens; the authors' training code keeps int(T * (1 - gamma)), one less where
        T * gamma is not whole.
        """
        evaluation = evaluation.prepare(self, x)
        x, t, y = evaluation.distinct(x, t, y)
        patch, channels = self.config.patch_size, x.shape[1]
        height, length = x.shape[2] // patch, x.shape[3] // patch
        embedded = self.x_embedder(x) + self.positions(self.pos_embed, height, length).to(x)  # [U * B, T, D]
        again = self.positions(self.decoder_pos_embed, height, length).to(x)
        c = F.silu(self.t_embedder(t, x.dtype) + self.y_embedder(y).to(x.dtype)).unsqueeze(1)  # [U * B, 1, D]
        places = cells(height, length, self.config.grid, x.device)  # [1, T]
        if self.sparsity.mask is None:
            tables = places, again, embedded
            h, c = run_layers(self.layers(), self.sparsity, evaluation, embedded, (c,), tables)
        else:  # [U * B, T, D] -> K tokens through the encoder -> [N, T, D]
            h, c = run_masked((self.encode,), evaluation, embedded, self.mask_token, (c,), (places,))
            (skip,) = evaluation.expand(embedded)
            h = h + again
            if evaluation.sparse:
                h = self.interpolate(h, c, places, evaluation.kept[0])
            for block in self.de_blocks:
                h = block(h, c, places, WHOLE, skip=skip)
        return unpatchify(self.final_layer(h, c), height, length, patch)[:, :channels]

    def encode(self, x: Tensor, c: Tensor, cells: Tensor, packing: Packing) -> Tensor:
        """[B, K, D] -> [B, K, D]; the way out looks back at the way in."""
        skips = []
        for block in self.en_inblocks:
            x = block(x, c, cells, packing)
            skips.append(x.view_as(x))  # x itself twice would be compiled as a case of its own
        for block in self.en_outblocks:
            x = block(x, c, cells, packing, skip=skips.pop())
        return x

    def layers(self) -> list[Callable[..., Tensor]]:
        """The encoder and the layers of the decoder, each called with x, c, cells, the decoder's positions, what the
        decoder looks back at, and the packing."""

        def encoder(x: Tensor, c: Tensor, cells: Tensor, again: Tensor, skip: Tensor, packing: Packing) -> Tensor:
            return self.encode(x, c, cells, packing)

        def decoder(number: int) -> Callable[..., Tensor]:
            def layer(x: Tensor, c: Tensor, cells: Tensor, again: Tensor, skip: Tensor, packing: Packing) -> Tensor:
                return self.de_blocks[number](x if number else x + again, c, cells, packing, skip=skip)

            return layer

        return [encoder, *map(decoder, range(len(self.de_blocks)))]

    def interpolate(self, x: Tensor, c: Tensor, cells: Tensor, kept: Sequence[Tensor]) -> Tensor:
        """x [N, T, D], those of its tokens that are not among kept [B, K] of their chunk as a layer over all of them
        makes them."""
        left_out = torch.zeros_like(x[: len(kept[0]), :, :1], dtype=torch.bool)
        known = torch.cat([left_out.scatter(1, own.unsqueeze(-1), True) for own in kept])
        (side,) = self.sideblocks
        return torch.where(known, x, side(x, c, cells, WHOLE))

    def positions(self, table: Tensor, height: int, length: int) -> Tensor:
        """[1, height * length, D]: the learnt table, stretched to other sizes."""
        grid = self.config.grid
        if height == length == grid:
            return table
        picture = table.float().mT.unflatten(2, (grid, grid))
        return F.interpolate(picture, (height, length), mode="bilinear", align_corners=False).flatten(2).mT


@made_once
def cells(height: int, length: int, grid: int, device: torch.device) -> Tensor:
    """The cell of every token in the native grid, row * `reach(grid)` + column, [1, T]; several share one where there
    are more."""
    row, column = (torch.arange(side, device=device) * grid // side for side in (height, length))
    return (row.unsqueeze(1) * reach(grid) + column).reshape(1, -1)


def reach(grid: int) -> int:
    """How many steps there are from one column of a grid to another, to the left and to the right."""
    return 2 * grid - 1


class RelativeBias(nn.Module):
    """How much every head looks from one cell of the native grid to another."""

    def __init__(self, backend: Backend, grid: int, heads: int):
        super().__init__()
        self.middle = reach(grid) ** 2 // 2
        # The authors' table has three rows more, which nothing reads.
        self.relative_position_bias_table = backend.parameter(reach(grid) ** 2 + 3, heads).requires_grad_()

    def forward(self, cells: Tensor, dtype: torch.dtype) -> Tensor:
        """cells [B, K] -> [B, heads, K, K], on the logits of queries (first) and keys."""
        table = self.relative_position_bias_table.to(cells.device, dtype)
        return table[(cells + self.middle).unsqueeze(2) - cells.unsqueeze(1)].permute(0, 3, 1, 2)


class Attention(nn.Module):
    def __init__(self, backend: Backend, config: MDTConfig):
        super().__init__()
        self.heads, self.attend = config.heads, backend.attention
        self.qkv = backend.linear(config.width, 3 * config.width)
        self.proj = backend.linear(config.width, config.width)
        self.rel_pos_bias = RelativeBias(backend, config.grid, config.heads)

    def forward(self, x: Tensor, cells: Tensor, packing: Packing) -> Tensor:
        parts = *self.qkv(x).chunk(3, dim=-1), cells
        segments = zip(*map(packing.split, parts), strict=True)
        seen = [self.attend(q, k, v, self.heads, self.rel_pos_bias(own, x.dtype)) for q, k, v, own in segments]
        return self.proj(joined(seen))


class Block(AdaLNBlock):
    """x [B, K, D], c [B, 1 or segments, D], cells [B or 1, K], packing -> [B, K, D]."""

    def __init__(self, backend: Backend, config: MDTConfig):
        width = config.width
        super().__init__(backend, width, config.heads, config.mlp_ratio, width, Attention(backend, config))


class SkipBlock(Block):
    """The same for x and what its tokens were before, `skip` [B or 1, K, D]."""

    def __init__(self, backend: Backend, config: MDTConfig):
        super().__init__(backend, config)
        self.skip_linear = backend.linear(2 * config.width, config.width)

    def forward(self, x: Tensor, c: Tensor, *attending: Tensor | Packing, skip: Tensor) -> Tensor:
        x = self.skip_linear(torch.cat([x, skip.expand(len(x), -1, -1)], dim=-1))
        return super().forward(x, c, *attending)
