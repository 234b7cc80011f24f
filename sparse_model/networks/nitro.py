"""What the two networks of Nitro-T share: sizes, positions, time, normalised text, MLP.

Both mix all patches in their first layers and drop part of them behind those in training (deferred masking, as
MicroDiT's). Keys are those of amd/Nitro-T-0.6B and 1.2B, which are built from the layers of diffusers.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layers import Backend, GridConfig, sinusoid
from .positions import sincos_like

NATIVE = 16  # patches along a side at 512 pixels: positions at 1024 are those of 512, twice as dense


@dataclass(frozen=True, kw_only=True)
class NitroConfig(GridConfig):
    """Of `depth` layers the first `mixer_depth` see all tokens in training."""

    input_size: int = 16
    patch_size: int = 1
    in_channels: int = 32
    width: int = 1152
    depth: int
    heads: int
    hidden: int = 4608
    text_width: int = 2048
    mixer_depth: int = 3

    @property
    def pixels(self) -> int:
        """Values of one token of the output."""
        return self.patch_size**2 * self.in_channels


def positions(config: NitroConfig, height: int, length: int, x: Tensor) -> Tensor:
    """[1, height * length, D], stretched to the same picture at every size."""
    return sincos_like(x, config.width, height, length, NATIVE)


def text_norm(backend: Backend, width: int) -> nn.Module:
    return backend.rms_norm(width, eps=1e-5)


class Time(nn.Module):
    """t [B] in [0, 1] -> [B, D]: cosines and sines of 1,000 t, then an MLP."""

    def __init__(self, backend: Backend, width: int):
        super().__init__()
        self.timestep_embedder = nn.ModuleDict(
            {"linear_1": backend.linear(256, width), "linear_2": backend.linear(width, width)}
        )

    def forward(self, t: Tensor, dtype: torch.dtype) -> Tensor:
        first, second = self.timestep_embedder.values()
        return second(F.silu(first(sinusoid(1000 * t, 256).to(dtype))))


class FeedForward(nn.Module):
    def __init__(self, backend: Backend, width: int, hidden: int):
        super().__init__()
        first = nn.ModuleDict({"proj": backend.linear(width, hidden)})
        self.net = nn.ModuleList([first, nn.Identity(), backend.linear(hidden, width)])

    def forward(self, x: Tensor) -> Tensor:
        return self.net[2](F.gelu(self.net[0]["proj"](x), approximate="tanh"))
