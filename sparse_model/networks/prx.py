"""PRX, a text-conditional diffusion transformer whose image tokens also attend to text that stays as it is.

Keys are those of diffusers' PRXTransformer2DModel. The latent models read T5-Gemma and predict velocity; PRXPixel reads
Qwen3-VL, predicts the picture, and knows its size.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..conditions.text import Text
from ..method.branches import DENSE, Evaluation, Prepared
from ..method.packing import WHOLE, Packing
from ..method.sparse_pass import run_layers
from ..method.sparsity import Sparsity
from .layers import TORCH, AdaLNLinear, Backend, GridConfig, modulate, patchify, sinusoid, unpatchify
from .positions import rotary_positions, rotate


@dataclass(frozen=True)
class PRXConfig(GridConfig):
    """`bottleneck` is the width between the two layers that embed a patch (0: one layer embeds it); `sized` models
    are told height and width."""

    input_size: int = 64
    patch_size: int = 2
    in_channels: int = 16
    width: int = 1792
    depth: int = 16
    heads: int = 28
    mlp_ratio: float = 3.5
    text_width: int = 2304
    bottleneck: int = 0
    sized: bool = False


class Embedder(nn.Module):
    def __init__(self, backend: Backend, inputs: int, width: int):
        super().__init__()
        self.in_layer = backend.linear(inputs, width)
        self.out_layer = backend.linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.out_layer(F.silu(self.in_layer(x)))


class ResolutionEmbedder(nn.Module):
    """Height and width of the network's input -> [1, D]."""

    def __init__(self, backend: Backend, width: int):
        super().__init__()
        self.mlp = Embedder(backend, 256, width)

    def forward(self, height: int, length: int, like: Tensor) -> Tensor:
        # filled, not uploaded: an upload makes the step wait for the device
        sides = torch.stack([torch.full((), float(side), device=like.device) for side in (height, length)])
        return self.mlp(sinusoid(sides, 128).reshape(1, 256).to(like))


class Modulation(nn.Module):
    def __init__(self, backend: Backend, width: int):
        super().__init__()
        self.lin = backend.linear(width, 6 * width)

    def forward(self, c: Tensor) -> Tensor:
        return self.lin(c)


class TextAttention(nn.Module):
    """Image tokens attend to the text and to one another; only image tokens have a place and queries."""

    def __init__(self, backend: Backend, width: int, heads: int):
        super().__init__()
        self.heads, self.attend = heads, backend.attention
        self.img_qkv_proj = backend.linear(width, 3 * width, bias=False)
        self.norm_q = backend.rms_norm(width // heads)
        self.norm_k = backend.rms_norm(width // heads)
        self.txt_kv_proj = backend.linear(width, 2 * width, bias=False)
        self.norm_added_k = backend.rms_norm(width // heads)
        self.to_out = nn.ModuleList([backend.linear(width, width, bias=False)])

    def forward(self, x: Tensor, text: Tensor, bias: Tensor, positions: Tensor, packing: Packing = WHOLE) -> Tensor:
        """x [B, K, D], text [B, 1 or segments, M, D] with bias [B, 1 or segments, M + T] on the logits, positions
        [B or 1, K, 1, d / 2, 2] -> [B, K, D]."""
        q, k, v = self.img_qkv_proj(x).unflatten(-1, (3, self.heads, -1)).unbind(2)  # [B, K, heads, d]
        text_k, text_v = self.txt_kv_proj(text).unflatten(-1, (2, self.heads, -1)).unbind(3)
        q, k, text_k = rotate(self.norm_q(q), positions), rotate(self.norm_k(k), positions), self.norm_added_k(text_k)
        own, context = (x.flatten(2) for x in (q, k, v)), (x.flatten(3) for x in (text_k, text_v))
        return self.to_out[0](packing.attend_with(self.attend, *own, self.heads, *context, bias))


class PRXBlock(nn.Module):
    def __init__(self, backend: Backend, width: int, heads: int, hidden: int):
        super().__init__()
        self.img_pre_norm = backend.norm(width)
        self.attention = TextAttention(backend, width, heads)
        self.post_attention_layernorm = backend.norm(width)
        self.gate_proj = backend.linear(width, hidden, bias=False)
        self.up_proj = backend.linear(width, hidden, bias=False)
        self.down_proj = backend.linear(hidden, width, bias=False)
        self.modulation = Modulation(backend, width)

    def forward(
        self, x: Tensor, c: Tensor, text: Tensor, bias: Tensor, positions: Tensor, packing: Packing = WHOLE
    ) -> Tensor:
        """x [B, K, D], c [B, 1 or segments, D], and what the attention takes -> [B, K, D]."""
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = packing.spread(self.modulation(c)).chunk(6, dim=-1)
        h = modulate(self.img_pre_norm(x), shift_a, 1 + scale_a)
        x = torch.addcmul(x, gate_a, self.attention(h, text, bias, positions, packing))
        h = modulate(self.post_attention_layernorm(x), shift_m, 1 + scale_m)
        h = F.gelu(self.gate_proj(h), approximate="tanh") * self.up_proj(h)
        return torch.addcmul(x, gate_m, self.down_proj(h))


class PRX(nn.Module):
    """`sparsity` is a route over the blocks; text tokens are never left out."""

    def __init__(self, config: PRXConfig, sparsity: Sparsity = Sparsity(), backend: Backend = TORCH):
        super().__init__()
        self.config, self.sparsity = config, sparsity
        width, pixels = config.width, config.patch_size**2 * config.in_channels
        if config.bottleneck:
            self.img_in = nn.Sequential(
                backend.linear(pixels, config.bottleneck), backend.linear(config.bottleneck, width)
            )
        else:
            self.img_in = backend.linear(pixels, width)
        self.time_in = Embedder(backend, 256, width)
        self.txt_in = backend.linear(config.text_width, width)
        self.resolution_embedder = ResolutionEmbedder(backend, width) if config.sized else None
        hidden = int(width * config.mlp_ratio)
        self.blocks = nn.ModuleList(PRXBlock(backend, width, config.heads, hidden) for _ in range(config.depth))
        self.final_layer = AdaLNLinear(backend, width, pixels, width)

    def forward(self, x: Tensor, t: Tensor, y: Text, evaluation: Evaluation | Prepared = DENSE) -> Tensor:
        """x [N, C, H, W], t [N] from 0 at the data to 1 at noise, y of N prompts -> [N, C, H, W]."""
        evaluation = evaluation.prepare(self, x)
        x, t, embeddings, mask = evaluation.distinct(x, t, *y)
        patch = self.config.patch_size
        height, length = x.shape[2] // patch, x.shape[3] // patch
        positions = rotary_positions(height, length, self.config.width // self.config.heads, x.device)
        text = self.txt_in(embeddings.to(x.dtype)).unsqueeze(1)  # [U * B, 1, M, D]
        bias = torch.zeros_like(text[..., 0]).masked_fill(~mask.bool().unsqueeze(1), torch.finfo(x.dtype).min)
        c = self.time_in(sinusoid(t, 256, scale=1000).to(x.dtype)).unsqueeze(1)  # [U * B, 1, D]
        if self.resolution_embedder is not None:
            c = c + self.resolution_embedder(x.shape[2], x.shape[3], c)
        c, bias = F.silu(c), F.pad(bias, (0, height * length))  # [U * B, 1, M + T]
        h = self.img_in(patchify(x, patch))  # [U * B, T, D]
        h, c, *_ = run_layers(self.blocks, self.sparsity, evaluation, h, (c, text, bias), (positions,))  # [N, T, D]
        return unpatchify(self.final_layer(h, c), height, length, patch, "c p q")
