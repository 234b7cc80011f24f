"""MicroDiT, a text-to-image transformer that mixes all patches before most of them are dropped (arXiv 2407.15811).

Keys are those of SonyResearch/micro_diffusion checkpoints. A token that the mask drops gets no prediction of its own:
the network's output is `mask_token`, zeros, in its place.
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
from .layers import (
    TORCH,
    Backend,
    GatedMlp,
    GridConfig,
    PatchEmbed,
    TimestepEmbedder,
    modulate,
    modulation,
    unpatchify,
)
from .positions import table_or_sincos

NATIVE = 16  # patches along a side at 256 pixels: positions at 512 are those of 256, twice as dense


@dataclass(frozen=True, kw_only=True)
class MicroDiTConfig(GridConfig):
    """`attention`, `hidden` and `experts` have one number per layer, the patch mixer's layers first: the width of its
    self-attention, of its MLP, and how many experts share the latter (0: none, every token takes it)."""

    width: int
    depth: int
    mixer_width: int
    mixer_depth: int
    attention: tuple[int, ...]
    hidden: tuple[int, ...]
    experts: tuple[int, ...]
    text_width: int
    text_hidden: int
    head_width: int
    capacity: float = 2.0


class MicroDiT(nn.Module):
    """`sparsity` is a mask behind the patch mixer, as trained, or routes over the layers that follow it."""

    def __init__(self, config: MicroDiTConfig, sparsity: Sparsity = Sparsity(), backend: Backend = TORCH):
        super().__init__()
        self.config, self.sparsity = config, sparsity
        width, mixed, pixels = config.width, config.mixer_width, config.patch_size**2 * config.in_channels
        self.x_embedder = PatchEmbed(backend, config.in_channels, config.patch_size, width)
        self.t_embedder = TimestepEmbedder(backend, width, 512, gelu())
        self.pos_embed = backend.parameter(1, config.grid**2, width)
        self.y_embedder = nn.ModuleDict({"y_proj": TextMlp(backend, config.text_width, width)})
        self.y_emb_preprocess = TextBlock(backend, config)
        self.pooled_y_emb_process = TextMlp(backend, width, width)
        self.patch_mixer = nn.ModuleList(Block(backend, config, mixed, i) for i in range(config.mixer_depth))
        self.patch_mixer_map_xin = Projection(backend, width, mixed)
        self.patch_mixer_map_xout = Projection(backend, mixed, width)
        self.patch_mixer_map_y = Projection(backend, width, mixed)
        self.blocks = nn.ModuleList(Block(backend, config, width, config.mixer_depth + i) for i in range(config.depth))
        self.mask_token = backend.parameter(1, 1, pixels)
        self.final_layer = FinalLayer(backend, width, pixels)

    def forward(self, x: Tensor, t: Tensor, y: Text, evaluation: Evaluation | Prepared = DENSE) -> Tensor:
        """x [N, C, H, W], t [N], y embeddings [N, M, text_width] (its mask is not used) -> [N, C, H, W]."""
        evaluation = evaluation.prepare(self, x)
        x, t, text = evaluation.distinct(x, t, y.embeddings)
        patch, grid = self.config.patch_size, self.config.grid
        height, length = x.shape[2] // patch, x.shape[3] // patch
        positions = table_or_sincos(self.pos_embed, height, length, grid, x, native=min(grid, NATIVE))
        h = self.x_embedder(x) + positions  # [U * B, T, D]
        text = self.y_emb_preprocess(self.y_embedder["y_proj"](text.to(x.dtype)))  # [U * B, M, D]
        c = gelu()(self.t_embedder(t, x.dtype) + self.pooled_y_emb_process(text.mean(dim=1)))
        c, text = c.unsqueeze(1), text.unsqueeze(1)  # [U * B, 1, D], [U * B, 1, M, D]
        h, mixer_text = self.patch_mixer_map_xin(h), self.patch_mixer_map_y(text)
        for block in self.patch_mixer:
            h = block(h, c, mixer_text)
        if self.sparsity.mask is None:
            h = self.patch_mixer_map_xout(h)
            h, c, _ = run_layers(self.blocks, self.sparsity, evaluation, h, per_sample=(c, text))
            h = self.final_layer(h, c)
        else:  # [U * B, T, mixer D] -> K tokens through everything that follows -> [N, T, patch * patch * C]
            layers = (self.patch_mixer_map_xout, *self.blocks, self.final_layer)
            h, *_ = run_masked(layers, evaluation, h, self.mask_token, per_sample=(c, text))
        return unpatchify(h, height, length, patch)


def gelu() -> nn.GELU:
    return nn.GELU(approximate="tanh")


class Projection(nn.Sequential):
    """Normalised and projected from one width to another; nothing at all where they are the same."""

    def __init__(self, backend: Backend, inputs: int, outputs: int):
        layers = (backend.norm(inputs, weight=True), backend.linear(inputs, outputs, bias=False))
        super().__init__(*(layers if inputs != outputs else ()))

    def forward(self, x: Tensor, *_: Tensor | Packing) -> Tensor:
        return super().forward(x)


class TextMlp(nn.Module):
    def __init__(self, backend: Backend, inputs: int, width: int):
        super().__init__()
        self.fc1 = backend.linear(inputs, width)
        self.norm = backend.norm(width, weight=True)
        self.fc2 = backend.linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.norm(F.gelu(self.fc1(x), approximate="tanh")))


class SelfAttention(nn.Module):
    """Queries and keys are normalised over all heads together."""

    def __init__(self, backend: Backend, width: int, inner: int, heads: int):
        super().__init__()
        self.heads, self.attend, self.normalise = heads, backend.attention, backend.norm(inner)
        self.qkv = backend.linear(width, 3 * inner, bias=False)
        self.proj = backend.linear(inner, width, bias=False)

    def forward(self, x: Tensor, packing: Packing = WHOLE) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        return self.proj(packing.attend(self.attend, self.normalise(q), self.normalise(k), v, self.heads))


class CrossAttention(nn.Module):
    def __init__(self, backend: Backend, width: int, heads: int):
        super().__init__()
        self.heads, self.attend, self.normalise = heads, backend.attention, backend.norm(width)
        self.q_linear = backend.linear(width, width, bias=False)
        self.kv_linear = backend.linear(width, 2 * width, bias=False)
        self.proj = backend.linear(width, width, bias=False)

    def forward(self, x: Tensor, text: Tensor, packing: Packing) -> Tensor:
        """x [B, T, D], text [B, 1 or segments, M, D] -> [B, T, D]."""
        q, (k, v) = self.normalise(self.q_linear(x)), self.kv_linear(text).chunk(2, dim=-1)
        return self.proj(packing.attend_to(self.attend, q, self.normalise(k), v, self.heads))


class Experts(nn.Module):
    """MLPs that choose their tokens: of T tokens each takes the capacity * T / experts that it scores highest
    (arXiv 2202.09368). Branches that are packed in one row are chosen from apart."""

    def __init__(self, backend: Backend, width: int, hidden: int, experts: int, capacity: float):
        super().__init__()
        self.capacity = capacity
        self.gate = backend.linear(width, experts, bias=False)
        self.w1 = backend.parameter(experts, width, hidden).requires_grad_()
        self.w2 = backend.parameter(experts, hidden, width).requires_grad_()

    def forward(self, x: Tensor, packing: Packing = WHOLE) -> Tensor:
        scores, tokens = self.choose(self.gate(x).softmax(dim=-1), packing)  # [B, E, k] each
        index = tokens.flatten(1).unsqueeze(-1).expand(-1, -1, x.shape[2])  # [B, E * k, D]
        taken = x.gather(1, index).unflatten(1, tokens.shape[1:]).transpose(0, 1)  # [E, B, k, D]
        h = F.gelu(torch.bmm(taken.flatten(1, 2), self.w1.to(x)))
        h = torch.bmm(h, self.w2.to(x)).unflatten(1, taken.shape[1:3]).transpose(0, 1)
        return torch.zeros_like(x).scatter_add(1, index, (h * scores.unsqueeze(-1)).flatten(1, 2))

    def choose(self, probabilities: Tensor, packing: Packing) -> tuple[Tensor, Tensor]:
        """[B, T, E] -> probabilities and numbers of the chosen tokens, [B, E, k] each, segment after segment."""
        chosen, start = [], 0
        for part in packing.split(probabilities.transpose(1, 2), dim=2):
            count = int(self.capacity * part.shape[2] / part.shape[1])
            scores, tokens = part.topk(count, dim=2)
            chosen.append((scores, tokens + start))
            start += part.shape[2]
        scores, tokens = zip(*chosen, strict=True)
        return torch.cat(scores, dim=2), torch.cat(tokens, dim=2)


class Block(nn.Module):
    """Self-attention, attention to the text, MLP: x [B, T, D], c [B, 1 or segments, width], text [B, 1 or segments, M,
    D] -> [B, T, D]. `layer` is its number in the config's lists."""

    def __init__(self, backend: Backend, config: MicroDiTConfig, width: int, layer: int):
        super().__init__()
        inner, hidden, experts = config.attention[layer], config.hidden[layer], config.experts[layer]
        self.norm1 = backend.norm(width, weight=True)
        self.attn = SelfAttention(backend, width, inner, inner // config.head_width)
        self.norm2 = backend.norm(width, weight=True)
        self.cross_attn = CrossAttention(backend, width, width // config.head_width)
        self.norm3 = backend.norm(width, weight=True)
        self.mlp = (
            Experts(backend, width, hidden, experts, config.capacity)
            if experts
            else GatedMlp(backend, width, hidden, ("w1", "w2", "w3"))
        )
        self.adaLN_modulation = modulation(backend, config.width, 6 * width)

    def forward(self, x: Tensor, c: Tensor, text: Tensor, packing: Packing = WHOLE) -> Tensor:
        parts = packing.spread(self.adaLN_modulation(c)).chunk(6, dim=-1)
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = parts
        x = torch.addcmul(x, gate_a, self.attn(modulate(self.norm1(x), shift_a, 1 + scale_a), packing))
        x = x + self.cross_attn(self.norm2(x), text, packing)
        h = modulate(self.norm3(x), shift_m, 1 + scale_m)
        return torch.addcmul(x, gate_m, self.mlp(h, packing) if isinstance(self.mlp, Experts) else self.mlp(h))


class TextBlock(nn.Module):
    """Self-attention and MLP over the tokens of a prompt."""

    def __init__(self, backend: Backend, config: MicroDiTConfig):
        super().__init__()
        width = config.width
        self.norm1 = backend.norm(width, weight=True)
        self.attn = SelfAttention(backend, width, width, width // config.head_width)
        self.norm2 = backend.norm(width, weight=True)
        self.mlp = GatedMlp(backend, width, config.text_hidden, ("w1", "w2", "w3"))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class FinalLayer(nn.Module):
    def __init__(self, backend: Backend, width: int, outputs: int):
        super().__init__()
        self.norm_final = backend.norm(width, weight=True)
        self.linear = backend.linear(width, outputs)
        self.adaLN_modulation = modulation(backend, width, 2 * width)

    def forward(self, x: Tensor, c: Tensor, text: Tensor | None = None, packing: Packing = WHOLE) -> Tensor:
        shift, scale = packing.spread(self.adaLN_modulation(c)).chunk(2, dim=-1)
        return self.linear(modulate(self.norm_final(x), shift, 1 + scale))
