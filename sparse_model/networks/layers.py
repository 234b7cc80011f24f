"""Layers that the architectures share: patching, time and label embeddings, attention, adaLN blocks."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, TypeVar

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..method.packing import WHOLE, Packing
from ..once import made_once
from .positions import rotate

Sized = TypeVar("Sized", bound="TransformerConfig")


def attend(q: Tensor, k: Tensor, v: Tensor, heads: int, bias: Tensor | None = None) -> Tensor:
    """Multi-head attention of q [B, T, heads * d] over k, v [B, S, heads * d] by PyTorch's scaled dot product.

    `bias` [B, 1, S] is added to the logits of every query: 0, or a very negative number where nobody may look;
    [B or 1, heads, T, S] to those of every head and query.
    """
    q, k, v = _heads(q, k, v, heads)
    bias = bias.unsqueeze(1) if bias is not None and bias.ndim == 3 else bias  # [B, 1, 1, S]
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias).transpose(1, 2).flatten(2)


def attend_written_out(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """The same as `attend`, by two products and a softmax.

    On a CPU and a few dozen tokens in bfloat16 this trains 1.4 times faster than the fused function, whose backward
    pass is slow.
    """
    q, k, v = _heads(q, k, v, heads)
    weights = ((q * q.shape[-1] ** -0.5) @ k.mT).softmax(dim=-1).to(v.dtype)
    return (weights @ v).transpose(1, 2).flatten(2)


def _heads(q: Tensor, k: Tensor, v: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """[B, T, heads * d] -> [B, heads, T, d] each. Plain views: a GPU that waits for launches waits for Python."""
    return tuple(x.reshape(*x.shape[:2], heads, -1).transpose(1, 2) for x in (q, k, v))


@dataclass(frozen=True)
class Backend:
    """Where layers come from and live: torch.nn, or a host's offloading and casting counterpart of it.

    `ops` has Linear, Conv2d, LayerNorm, RMSNorm and Embedding; `attention` has the signature of `attend`.
    """

    ops: object = nn
    attention: Callable[..., Tensor] = attend
    device: torch.device | str | None = None
    dtype: torch.dtype | None = None

    def linear(self, inputs: int, outputs: int, bias: bool = True) -> nn.Module:
        return self.ops.Linear(inputs, outputs, bias=bias, device=self.device, dtype=self.dtype)

    def norm(self, width: int, weight: bool = False) -> nn.Module:
        place = {"device": self.device, "dtype": self.dtype}
        return self.ops.LayerNorm(width, elementwise_affine=weight, bias=False, eps=1e-6, **place)

    def rms_norm(self, width: int, eps: float = 1e-6) -> nn.Module:
        return self.ops.RMSNorm(width, eps=eps, device=self.device, dtype=self.dtype)

    def embedding(self, rows: int, width: int) -> nn.Module:
        return self.ops.Embedding(rows, width, device=self.device, dtype=self.dtype)

    def parameter(self, *shape: int) -> nn.Parameter:
        """A tensor that a checkpoint fills and training leaves alone (position tables)."""
        return nn.Parameter(torch.zeros(shape, device=self.device, dtype=self.dtype), requires_grad=False)


TORCH = Backend()


@dataclass(frozen=True)
class GridConfig:
    """An input cut into patches: `input_size` a side, `in_channels` channels, patches of `patch_size` a side."""

    input_size: int = 32
    patch_size: int = 2
    in_channels: int = 4

    @property
    def grid(self) -> int:
        """Patches along a side of the native input."""
        return self.input_size // self.patch_size

    def tokens(self, height: int, width: int) -> int:
        """Tokens of an input of height x width."""
        return (height // self.patch_size) * (width // self.patch_size)


@dataclass(frozen=True)
class TransformerConfig(GridConfig):
    """The sizes that class-conditional diffusion transformers share. `SIZES` names published (width, depth, heads)."""

    SIZES: ClassVar[dict[str, tuple[int, int, int]]] = {
        "S": (384, 12, 6),
        "B": (768, 12, 12),
        "L": (1024, 24, 16),
        "XL": (1152, 28, 16),
    }
    width: int = 1152
    depth: int = 28
    heads: int = 16
    mlp_ratio: float = 4.0
    num_classes: int = 1000

    @classmethod
    def named(cls: type[Sized], name: str, **changes) -> Sized:
        """The published sizes: `named("XL/2")`, `named("B/4", input_size=64)`."""
        size, _, patch = name.partition("/")
        if size not in cls.SIZES or not patch.isdigit() or int(patch) < 1:
            sizes = ", ".join(cls.SIZES)
            raise ValueError(f"'{name}' is not a published size; write {sizes} and a patch, such as XL/2.")
        width, depth, heads = cls.SIZES[size]
        return cls(**{"width": width, "depth": depth, "heads": heads, "patch_size": int(patch), **changes})


def modulation(backend: Backend, condition: int, outputs: int) -> nn.Sequential:
    """[B, S, condition] -> [B, S, outputs]: the layer of a block's own that modulates it by a condition, which is
    activated for all blocks at once. Checkpoints count the activation as layer 0."""
    return nn.Sequential(nn.Identity(), backend.linear(condition, outputs))


def modulations(values: Tensor) -> tuple[Tensor, ...]:
    """values [B, S, 6 * D] -> shift, 1 + scale and gate of a block's attention, and the same of its MLP, [B, S, D] each
    (arXiv 2212.09748, fig. 3). One sum over all of them is less to launch than one for each scale."""
    shift_a, _, gate_a, shift_m, _, gate_m = values.chunk(6, dim=-1)
    _, scale_a, _, _, scale_m, _ = (1 + values).chunk(6, dim=-1)
    return shift_a, scale_a, gate_a, shift_m, scale_m, gate_m


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """x [B, T, D] times `scale`, which is around 1, and shifted; both are [B, 1 or T, D]."""
    return torch.addcmul(shift, x, scale)


def patchify(x: Tensor, patch: int) -> Tensor:
    """[B, C, H, W] -> [B, H / patch * W / patch, C * patch * patch]."""
    return rearrange(x, "b c (h p) (w q) -> b (h w) (c p q)", p=patch, q=patch)


def unpatchify(x: Tensor, height: int, length: int, patch: int, order: str = "p q c") -> Tensor:
    """[B, height * length, patch * patch * C] -> [B, C, height * patch, length * patch].

    `order` is how a token lays out its pixels; "c p q" undoes `patchify`.
    """
    return rearrange(x, f"b (h w) ({order}) -> b c (h p) (w q)", h=height, w=length, p=patch, q=patch)


class PatchEmbed(nn.Module):
    """[B, C, H, W] -> [B, H / patch * W / patch, D]."""

    def __init__(self, backend: Backend, channels: int, patch: int, width: int):
        super().__init__()
        self.proj = backend.ops.Conv2d(
            channels, width, kernel_size=patch, stride=patch, device=backend.device, dtype=backend.dtype
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x).flatten(2).transpose(1, 2)


@made_once
def _frequencies(count: int, device: torch.device) -> Tensor:
    return torch.exp(-math.log(10000) * torch.arange(count, dtype=torch.float32, device=device) / count)


def sinusoid(values: Tensor, width: int, scale: float = 1.0) -> Tensor:
    """values [B] -> [B, width]: their cosines and sines at width / 2 frequencies, from `scale` down towards 1e-4 times
    that."""
    angles = scale * (values.float()[:, None] * _frequencies(width // 2, values.device))
    return torch.cat([angles.cos(), angles.sin()], dim=1)


class TimestepEmbedder(nn.Module):
    """t [B] -> [B, D]: cosines and sines of `frequencies` / 2 frequencies from 1 to 1e-4, then an MLP."""

    def __init__(self, backend: Backend, width: int, frequencies: int = 256, activation: nn.Module | None = None):
        super().__init__()
        first, last = backend.linear(frequencies, width), backend.linear(width, width)
        self.mlp = nn.Sequential(first, activation or nn.SiLU(), last)
        self.frequencies = frequencies

    def forward(self, t: Tensor, dtype: torch.dtype) -> Tensor:
        return self.mlp(sinusoid(t, self.frequencies).to(dtype))


class LabelEmbedder(nn.Module):
    """Label weights y [B, classes] -> [B, D]: the weighted sum of label embeddings; no label is the null condition.

    One-hot weights are the class-conditional case. Whatever is missing to a total weight of 1 is filled with the null
    embedding (the table's last row), so that blending a condition into the null condition is continuous.
    """

    def __init__(self, backend: Backend, classes: int, width: int):
        super().__init__()
        self.classes = classes
        self.embedding_table = backend.embedding(classes + 1, width)

    def forward(self, y: Tensor) -> Tensor:
        null = (1 - y.sum(dim=1, keepdim=True)).clamp(min=0)
        # Looking every row up is how the layer hands out its table in the right dtype and on the right device.
        table = self.embedding_table(torch.arange(self.classes + 1, device=y.device))
        return torch.cat([y, null], dim=1).to(table.dtype) @ table


class LabelProjection(nn.Module):
    """Label weights y [B, classes] -> [B, D], linear and without a bias: no label at all is the null condition."""

    def __init__(self, backend: Backend, classes: int, width: int):
        super().__init__()
        self.embedding_table = backend.linear(classes, width, bias=False)

    def forward(self, y: Tensor) -> Tensor:
        return self.embedding_table(y)


class Attention(nn.Module):
    def __init__(self, backend: Backend, width: int, heads: int):
        super().__init__()
        self.heads, self.attend = heads, backend.attention
        self.qkv = backend.linear(width, 3 * width)
        self.proj = backend.linear(width, width)

    def forward(self, x: Tensor, packing: Packing = WHOLE) -> Tensor:
        return self.proj(packing.attend(self.attend, *self.qkv(x).chunk(3, dim=-1), self.heads))


class RotaryAttention(nn.Module):
    """Self attention with RMS-normalised queries and keys that are turned by their tokens' positions."""

    def __init__(self, backend: Backend, width: int, heads: int):
        super().__init__()
        self.heads, self.attend = heads, backend.attention
        self.qkv = backend.linear(width, 3 * width)
        self.q_norm = backend.rms_norm(width // heads)
        self.k_norm = backend.rms_norm(width // heads)
        self.proj = backend.linear(width, width)

    def forward(self, x: Tensor, positions: Tensor, packing: Packing = WHOLE) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).unbind(2)  # [B, T, heads, d]
        q, k = rotate(self.q_norm(q), positions), rotate(self.k_norm(k), positions)
        return self.proj(packing.attend(self.attend, q.flatten(2), k.flatten(2), v.flatten(2), self.heads))


class Mlp(nn.Module):
    def __init__(self, backend: Backend, width: int, hidden: int):
        super().__init__()
        self.fc1 = backend.linear(width, hidden)
        self.fc2 = backend.linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


class GatedMlp(nn.Module):
    """last(activation(first(x)) * second(x)), SwiGLU by default (arXiv 2002.05202). Checkpoints name the three layers
    in their own ways."""

    def __init__(self, backend: Backend, width: int, hidden: int, names: tuple[str, str, str], bias: bool = False):
        super().__init__()
        self.names = names
        for name, sizes in zip(names, ((width, hidden), (width, hidden), (hidden, width)), strict=True):
            self.add_module(name, backend.linear(*sizes, bias=bias))

    def forward(self, x: Tensor) -> Tensor:
        first, second, last = (getattr(self, name) for name in self.names)
        return last(F.silu(first(x)) * second(x))


class AdaLNBlock(nn.Module):
    """A DiT block with adaLN-Zero: x [B, T, width], c [B, 1 or segments, condition] behind its activation, and what the
    attention takes besides x, the packing last -> [B, T, width]. `attention` and `mlp` stand in for the usual ones."""

    def __init__(
        self,
        backend: Backend,
        width: int,
        heads: int,
        mlp_ratio: float,
        condition: int,
        attention: nn.Module | None = None,
        mlp: nn.Module | None = None,
    ):
        super().__init__()
        self.norm1 = backend.norm(width)
        self.attn = attention or Attention(backend, width, heads)
        self.norm2 = backend.norm(width)
        self.mlp = mlp or Mlp(backend, width, int(width * mlp_ratio))
        self.adaLN_modulation = modulation(backend, condition, 6 * width)

    def forward(self, x: Tensor, c: Tensor, *attending: Tensor | Packing) -> Tensor:
        packing = attending[-1] if attending else WHOLE
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = modulations(self.adaLN_modulation(c))
        each = packing.spread
        x = torch.addcmul(x, each(gate_a), self.attn(modulate(self.norm1(x), each(shift_a), each(scale_a)), *attending))
        return torch.addcmul(x, each(gate_m), self.mlp(modulate(self.norm2(x), each(shift_m), each(scale_m))))


class AdaLNLinear(nn.Module):
    """Modulated norm, then a linear layer: the last layer of a DiT. c [B, 1 or segments, condition] is behind its
    activation. Names of the norm differ between checkpoints."""

    def __init__(self, backend: Backend, width: int, outputs: int, condition: int):
        super().__init__()
        self.norm = backend.norm(width)
        self.linear = backend.linear(width, outputs)
        self.adaLN_modulation = modulation(backend, condition, 2 * width)

    def forward(self, x: Tensor, c: Tensor, packing: Packing = WHOLE) -> Tensor:
        shift, scale = (packing.spread(part) for part in self.adaLN_modulation(c).chunk(2, dim=-1))
        return self.linear(modulate(self.norm(x), shift, 1 + scale))
