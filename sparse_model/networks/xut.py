"""XUT, the cross-U transformer of HDM: a text-to-image network whose whole U only kept tokens run through.

Keys are those of KohakuBlueleaf/HDM. Tokens of text stand behind those of the image, without a place, in every layer;
no branch leaves any of them out. The U is one layer of a route's count: `before` layers, the U, `after` layers.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..conditions.text import Text
from ..method.branches import DENSE, Evaluation, Prepared, keep_text
from ..method.packing import Packing
from ..method.sparse_pass import run_layers
from ..method.sparsity import Sparsity
from ..once import made_once
from .layers import TORCH, Backend, GridConfig, PatchEmbed, modulate, sinusoid, unpatchify
from .positions import turned

CENTRED = (0.0, 0.0, 1.0)


@dataclass(frozen=True)
class XUTConfig(GridConfig):
    """The sizes of HDM's 343M network for 1024 pixels. The U has `levels` of `encoder` layers on the way down and as
    many of `decoder` layers on the way up."""

    camera: ClassVar[bool] = True
    input_size: int = 128
    width: int = 1024
    heads: int = 16
    hidden: int = 3072
    text_width: int = 1024
    before: int = 1
    levels: int = 4
    encoder: int = 1
    decoder: int = 3
    after: int = 3

    @property
    def depth(self) -> int:
        """Layers as a route counts them."""
        return self.before + 1 + self.after

    @property
    def blocks(self) -> int:
        return self.before + self.levels * (self.encoder + self.decoder) + self.after


class XUT(nn.Module):
    """`sparsity` is a route over the U, as trained, or over more of the layers."""

    def __init__(self, config: XUTConfig, sparsity: Sparsity = Sparsity(), backend: Backend = TORCH):
        super().__init__()
        self.config, self.sparsity = config, sparsity
        width, pixels = config.width, config.patch_size**2 * config.in_channels
        self.in_patch = PatchEmbed(backend, config.in_channels, config.patch_size, width)
        self.ctx_proj = backend.linear(config.text_width, width)
        self.time_emb = Time(backend, width)
        self.addon_info_embs_proj = nn.Sequential(backend.linear(1, width), nn.Mish(), backend.linear(width, width))
        self.shared_adaln_attn = modulation(backend, width)
        self.shared_adaln_xattn = modulation(backend, width)
        self.shared_adaln_ffw = modulation(backend, width)
        self.prev_tread_trns = Blocks(backend, config, config.before)
        self.backbone = CrossU(backend, config)
        self.post_tread_trns = Blocks(backend, config, config.after)
        self.out_patch = Out(backend, width, pixels)

    def forward(
        self, x: Tensor, t: Tensor, y: Text, evaluation: Evaluation | Prepared = DENSE, camera: Tensor | None = None
    ) -> Tensor:
        """x [N, C, H, W], t [N] from 0 at the data to 1 at noise, y of N prompts, its mask None where no prompt has
        padding -> [N, C, H, W].

        camera [N, 3] looks elsewhere: right and down by shifts in halves of the longer side, and nearer by a zoom; None
        is 0, 0 and 1.
        """
        if camera is None:
            # filled, not uploaded: an upload makes the step wait for the device
            camera = torch.stack([torch.full((len(x),), value, device=x.device) for value in CENTRED], dim=1)
        evaluation = evaluation.prepare(self, x)
        x, t, text, camera = evaluation.distinct(x, t, y.embeddings, camera)
        patch, tokens, words = self.config.patch_size, self.config.tokens(*x.shape[2:]), text.shape[1]
        height, length = x.shape[2] // patch, x.shape[3] // patch

        c = self.time_emb(t, x.dtype) + self.addon_info_embs_proj(aspect(x))
        kinds = self.shared_adaln_attn, self.shared_adaln_xattn, self.shared_adaln_ffw
        scale, shift, gate = torch.stack([kind(c) for kind in kinds], dim=1).unsqueeze(1).chunk(3, dim=-1)
        c = torch.cat([1 + scale, shift, 1 + gate], dim=-1)  # [U * B, 1, 3, 3 * D]

        h = torch.cat([self.in_patch(x), self.ctx_proj(text.to(x.dtype))], dim=1)  # [U * B, T + M, D]
        places = F.pad(seen_from(camera, image_places(*x.shape[2:], patch, x.device)), (0, 0, 0, words))
        per_token = (places,)  # [U * B, T + M, 2]
        if y.mask is not None:
            (mask,) = evaluation.distinct(y.mask)
            bias = torch.zeros_like(mask, dtype=x.dtype).masked_fill(~mask.bool(), torch.finfo(x.dtype).min)
            per_token = (places, F.pad(bias, (tokens, 0)))  # [U * B, T + M]

        layers = (*self.prev_tread_trns.blocks, self.backbone, *self.post_tread_trns.blocks)
        evaluation = keep_text(evaluation, tokens, words)
        h, _ = run_layers(layers, self.sparsity, evaluation, h, (c,), per_token)  # [N, T + M, D]
        return unpatchify(self.out_patch(h[:, :tokens]), height, length, patch)


class CrossU(nn.Module):
    """Encoder and decoder, level by level; each level of the decoder begins by looking at the encoder's last output,
    the tokens of a branch at those of the same branch."""

    def __init__(self, backend: Backend, config: XUTConfig):
        super().__init__()
        self.enc_blocks = nn.ModuleList(
            nn.ModuleList(Block(backend, config) for _ in range(config.encoder)) for _ in range(config.levels)
        )
        self.dec_blocks = nn.ModuleList(
            nn.ModuleList((Block if i else CrossingBlock)(backend, config) for i in range(config.decoder))
            for _ in range(config.levels)
        )

    def forward(self, x: Tensor, c: Tensor, *attending: Tensor | Packing) -> Tensor:
        for level in self.enc_blocks:
            for block in level:
                x = block(x, c, *attending)
        # another object: compiled blocks would tell a crossing to their own input apart
        encoded = x.view_as(x)
        for first, *others in self.dec_blocks:
            x = first(x, c, encoded, *attending)
            for block in others:
                x = block(x, c, *attending)
        return x


class Blocks(nn.Module):
    def __init__(self, backend: Backend, config: XUTConfig, depth: int):
        super().__init__()
        self.blocks = nn.ModuleList(Block(backend, config) for _ in range(depth))


class Block(nn.Module):
    """Self-attention and MLP. What they add, they add to the modulated norm of their input, by a gate around 1: that
    norm is the residual."""

    def __init__(self, backend: Backend, config: XUTConfig):
        super().__init__()
        width = config.width
        self.attn_pre_norm = Norm(backend, width)
        self.attn = SelfAttention(backend, width, config.heads)
        self.mlp_pre_norm = Norm(backend, width)
        self.mlp = Mlp(backend, width, config.hidden)

    def forward(self, x: Tensor, c: Tensor, *attending: Tensor | Packing) -> Tensor:
        """x [B, K, D], c [B, 1 or segments, 3, 3 * D], the scale, shift and gate of attention, crossing and MLP, what
        attention takes besides (`Attention.look`) -> [B, K, D]."""
        attention, _, mlp = c.unbind(2)
        packing = attending[-1]
        x, gate = self.attn_pre_norm(x, attention, packing)
        x = torch.addcmul(x, gate, self.attn(x, *attending))
        x, gate = self.mlp_pre_norm(x, mlp, packing)
        return torch.addcmul(x, gate, self.mlp(x))


class CrossingBlock(Block):
    """A block with attention to the encoder in its middle. It has a `forward` of its own because torch.compile allows
    each function eight graphs."""

    def __init__(self, backend: Backend, config: XUTConfig):
        super().__init__(backend, config)
        self.xattn_pre_norm = Norm(backend, config.width)
        self.xattn = CrossAttention(backend, config.width, config.heads)

    def forward(self, x: Tensor, c: Tensor, encoded: Tensor, *attending: Tensor | Packing) -> Tensor:
        """As `Block.forward`, with the encoder's output [B, K, D]."""
        attention, crossing, mlp = c.unbind(2)
        packing = attending[-1]
        x, gate = self.attn_pre_norm(x, attention, packing)
        x = torch.addcmul(x, gate, self.attn(x, *attending))
        x, gate = self.xattn_pre_norm(x, crossing, packing)
        x = torch.addcmul(x, gate, self.xattn(x, encoded, *attending))
        x, gate = self.mlp_pre_norm(x, mlp, packing)
        return torch.addcmul(x, gate, self.mlp(x))


class Norm(nn.Module):
    """x [B, K, D], c [B, 1 or segments, 3 * D] -> the modulated norm of x, and the gate of what is added to it."""

    def __init__(self, backend: Backend, width: int):
        super().__init__()
        self.norm = backend.rms_norm(width)

    def forward(self, x: Tensor, c: Tensor, packing: Packing) -> tuple[Tensor, Tensor]:
        scale, shift, gate = packing.spread(c).chunk(3, dim=-1)
        return modulate(self.norm(x), shift, scale), gate


class Rotary(nn.Module):
    """Turns neighbouring pairs of a head's channels by a token's place, row and column in turn; every head has learnt
    how fast (arXiv 2403.13298). `freqs` are logarithms of radians from the middle of a picture to its longer edge."""

    def __init__(self, backend: Backend, width: int, heads: int):
        super().__init__()
        self.freqs = backend.parameter(heads, width // heads // 4, 2).requires_grad_()

    def forward(self, places: Tensor) -> Tensor:
        """places [B, K, 2] -> cosines and sines of every head, [B, K, heads, d / 2, 2]."""
        angles = (places[..., None, None, :] * self.freqs.to(places).exp()).flatten(-2)  # [B, K, heads, d / 2]
        return torch.stack([angles.cos(), angles.sin()], dim=-1)


class Attention(nn.Module):
    """Attention among the tokens of each branch, queries and keys turned by their places."""

    def __init__(self, backend: Backend, width: int, heads: int):
        super().__init__()
        self.heads, self.attend = heads, backend.attention
        self.rope = Rotary(backend, width, heads)
        self.out = backend.linear(width, width)

    def look(self, qkv: Tensor, places: Tensor, *seen: Tensor | Packing) -> Tensor:
        """qkv [B, K, 3 * D], places [B, K, 2] -> [B, K, D]. `seen` ends with the packing; in front of it may stand a
        bias [B, K] on the logits of tokens, which hides the padding of a prompt."""
        *bias, packing = seen
        q, k, v = turned(qkv, self.heads, self.rope(places))
        return self.out(packing.attend(self.attend, q, k, v, self.heads, *bias))


class SelfAttention(Attention):
    def __init__(self, backend: Backend, width: int, heads: int):
        super().__init__(backend, width, heads)
        self.qkv = backend.linear(width, 3 * width, bias=False)

    def forward(self, x: Tensor, *attending: Tensor | Packing) -> Tensor:
        return self.look(self.qkv(x), *attending)


class CrossAttention(Attention):
    """Tokens look at what the tokens of their branch were behind the encoder."""

    def __init__(self, backend: Backend, width: int, heads: int):
        super().__init__(backend, width, heads)
        self.q = backend.linear(width, width, bias=False)
        self.kv = backend.linear(width, 2 * width, bias=False)

    def forward(self, x: Tensor, encoded: Tensor, *attending: Tensor | Packing) -> Tensor:
        return self.look(torch.cat([self.q(x), self.kv(encoded)], dim=-1), *attending)


class Mlp(nn.Module):
    """SwiGLU (arXiv 2002.05202), its first two layers in one."""

    def __init__(self, backend: Backend, width: int, hidden: int):
        super().__init__()
        self.w12 = backend.linear(width, 2 * hidden)
        self.w3 = backend.linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.w12(x).chunk(2, dim=-1)
        return self.w3(F.silu(gate) * value)


class Time(nn.Module):
    """t [B] in [0, 1] -> [B, D]: cosines and sines of 1,000 t, then a layer."""

    def __init__(self, backend: Backend, width: int):
        super().__init__()
        self.width = width
        self.proj = nn.Sequential(backend.linear(width, width), nn.Mish())

    def forward(self, t: Tensor, dtype: torch.dtype) -> Tensor:
        return self.proj(sinusoid(1000 * t, self.width).to(dtype))


class Out(nn.Module):
    """[B, T, D] -> [B, T, patch * patch * C]."""

    def __init__(self, backend: Backend, width: int, pixels: int):
        super().__init__()
        self.proj = backend.linear(width, pixels)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x)


def modulation(backend: Backend, width: int) -> nn.Sequential:
    """[B, D] -> scale, shift and gate of all norms of one kind, [B, 3 * D] (shared adaLN, arXiv 2310.00426)."""
    norm = backend.ops.LayerNorm(width, device=backend.device, dtype=backend.dtype)
    return nn.Sequential(norm, backend.linear(width, 4 * width), nn.Mish(), backend.linear(4 * width, 3 * width))


def aspect(x: Tensor) -> Tensor:
    """The logarithm of width over height of x [N, C, H, W]: [N, 1]."""
    return torch.full((len(x), 1), x.shape[3] / x.shape[2], device=x.device).log().to(x.dtype)


@made_once
def image_places(height: int, width: int, patch: int, device: torch.device) -> Tensor:
    """Row and column of every patch of a picture of height x width, in halves of the longer side from its middle:
    [T, 2] in float32."""

    def axis(size: int) -> Tensor:
        pixels = 2 * torch.arange(size, dtype=torch.float32, device=device) + 1 - size
        middles = torch.arange(size // patch, device=device).unsqueeze(1) + 0.5
        # The published pipeline counts pixels and resizes to patches with a filter that reaches into the neighbours, so
        # that the patches along an edge lie a little further inside.
        reach = (1 - (middles - (torch.arange(size, device=device) + 0.5) / patch).abs()).clamp(min=0)
        return (reach * pixels).sum(dim=1) / reach.sum(dim=1) / max(height, width)

    return torch.cartesian_prod(axis(height), axis(width))


def seen_from(camera: Tensor, places: Tensor) -> Tensor:
    """places [T, 2] as rows and columns seen by cameras [N, 3] (shift to the right, shift down, zoom): [N, T, 2]."""
    right, down, zoom = camera.float().unsqueeze(-1).unbind(1)  # [N, 1] each
    return (places + torch.stack([down, right], dim=-1)) / zoom.unsqueeze(-1)
