"""Where tokens lie, as networks take it: tables that are added to tokens, and angles by which heads are turned."""

import torch
from torch import Tensor

from ..once import made_once


def sincos_positions(width: int, height: int, length: int, native: int) -> Tensor:
    """The 2-D sine-cosine table of MAE and DiT for a height x length grid: [1, height * length, width].

    Coordinates are stretched to the grid that the network was trained with (`native` a side), so another size or
    aspect keeps the picture's layout.
    """
    omega = 10000.0 ** (-torch.arange(width // 4, dtype=torch.float64) / (width / 4))

    def table(count: int) -> Tensor:
        angles = torch.outer(torch.arange(count, dtype=torch.float64) * (native / count), omega)
        return torch.cat([angles.sin(), angles.cos()], dim=1)  # [count, width / 2]

    rows, columns = table(height), table(length)
    grid = torch.cat([columns.repeat(height, 1), rows.repeat_interleave(length, dim=0)], dim=1)
    return grid.float().unsqueeze(0)


@made_once
def _sincos_on(width: int, height: int, length: int, native: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    return sincos_positions(width, height, length, native).to(device, dtype)


def sincos_like(x: Tensor, width: int, height: int, length: int, native: int) -> Tensor:
    """`sincos_positions` on the device and in the precision of x, made and uploaded once."""
    return _sincos_on(width, height, length, native, x.device, x.dtype)


def table_or_sincos(table: Tensor, height: int, length: int, grid: int, x: Tensor, native: int | None = None) -> Tensor:
    """[1, height * length, D] like x: a checkpoint's own `table` [1, grid * grid, D] at its own size; for any other the
    sine-cosine table, stretched to a grid of `native` a side (`grid` if not given)."""
    if height == length == grid:
        return table.to(x)
    return sincos_like(x, table.shape[2], height, length, native or grid)


@made_once
def rotary_positions(height: int, length: int, width: int, device: torch.device | str | None = None) -> Tensor:
    """Axial rotary positions of a height x length grid: [1, height * length, 1, width / 2, 2], cosines and sines.

    Of a head's `width` the first half turns with the row, the second with the column (arXiv 2403.13298).
    """
    frequencies = 10000.0 ** (-torch.arange(width // 4, dtype=torch.float32, device=device) / (width // 4))
    rows = torch.outer(torch.arange(height, dtype=torch.float32, device=device), frequencies)
    columns = torch.outer(torch.arange(length, dtype=torch.float32, device=device), frequencies)
    angles = torch.cat([rows.repeat_interleave(length, dim=0), columns.repeat(height, 1)], dim=1)
    return torch.stack([angles.cos(), angles.sin()], dim=-1).unsqueeze(1).unsqueeze(0)


def turned(qkv: Tensor, heads: int, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """qkv [B, T, 3 * D] -> q, k and v [B, T, D], of which q and k are turned, at once."""
    qk, v = qkv.unflatten(-1, (3, heads, -1)).tensor_split((2,), dim=2)
    q, k = rotate(qk, positions.unsqueeze(2)).flatten(3).unbind(2)
    return q, k, v.flatten(2)


def rotate(x: Tensor, positions: Tensor) -> Tensor:
    """Turns neighbouring pairs of x [B, T, ..., heads, d] by positions [B or 1, T, ..., 1 or heads, d / 2, 2], cosines
    and sines, in the precision of those.

    As one product of complex numbers, where there are such, which takes a tenth of the time of its parts; a compiler
    joins the parts, and knows no complex numbers.
    """
    pairs = x.unflatten(-1, (-1, 2))  # [B, T, heads, d / 2, 2]
    if torch.compiler.is_compiling() or x.device.type not in ("cpu", "cuda"):
        (cos, sin), (a, b) = positions.unbind(-1), pairs.unbind(-1)
        return torch.stack([a * cos - b * sin, a * sin + b * cos], dim=-1).flatten(-2).to(x.dtype)
    pairs = torch.view_as_complex(pairs.to(positions.dtype))
    return torch.view_as_real(pairs * torch.view_as_complex(positions)).flatten(-2).to(x.dtype)
