"""Where the tokens of a picture or a video lie, and an order of them whose every beginning is even over it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from einops import rearrange
from torch import Tensor

CELL = 2
"""Side of the cells of which SPRINT's training keeps one token (snap-research/Sprint, `mask_type`)."""


@dataclass(frozen=True)
class Grid:
    """The tokens from `start` to `stop` of a grid of (height, width) or (frames, height, width), row by row."""

    shape: tuple[int, ...]
    start: int = 0
    stop: int | None = None

    @classmethod
    def of(cls, size: Sequence[int], patch: Sequence[int], part: slice = slice(None)) -> "Grid":
        """Over a latent of `size`, cut into patches with one side per dimension and padded to whole ones."""
        shape = tuple(-(-length // side) for length, side in zip(size, patch, strict=True))
        start, stop, _ = part.indices(math.prod(shape))
        return cls(shape, start, stop)

    @property
    def tokens(self) -> int:
        return len(range(math.prod(self.shape))[self.start : self.stop])

    @property
    def chances(self) -> int:
        """How many random numbers `scores` takes for a sample."""
        return math.prod(self.shape[:-2]) * _chances(*self.shape[-2:])

    def scores(self, chances: Tensor) -> Tensor:
        """chances [R, self.chances] uniform in [0, 1) -> scores [R, tokens] in [0, 1).

        In rising order the first quarter of a frame is a random token of every 2 x 2, the second another, and so on.

        Within each of these quarters it is likewise for blocks of 4 x 4, of which the first quarter has one 2 x 2 each,
        and so on, so that any beginning is about as even as it can be. Where a side is odd, cells reach over the edge,
        and their tokens beyond it are left out: every token is as likely to be kept as any other.
        """
        frames = math.prod(self.shape[:-2])
        each = _spread(chances.double().reshape(len(chances) * frames, -1), *self.shape[-2:])
        return each.reshape(len(chances), -1)[:, self.start : self.stop]


def _cells(length: int) -> int:
    return -(-length // CELL)


def _chances(height: int, width: int) -> int:
    if height == width == 1:
        return 1
    rows, columns = _cells(height), _cells(width)
    return CELL**2 * rows * columns + _chances(rows, columns)


def _spread(chances: Tensor, height: int, width: int) -> Tensor:
    """[R, chances] -> [R, height, width]: the rank of every token in its cell, then of the cell in its block, as digits
    to the base 4; what is left of the chances stands behind the last digit and parts frames."""
    if height == width == 1:
        return chances.unsqueeze(2)
    rows, columns = _cells(height), _cells(width)
    own, others = chances.split([CELL**2 * rows * columns, _chances(rows, columns)], dim=1)
    ranks = _ranks(own.unflatten(1, (rows, columns, CELL**2)))
    within = rearrange(ranks, "r h w (p q) -> r (h p) (w q)", p=CELL)
    between = _spread(others, rows, columns).repeat_interleave(CELL, dim=1).repeat_interleave(CELL, dim=2)
    return ((within + between) / CELL**2)[:, :height, :width]


def _ranks(values: Tensor) -> Tensor:
    """The rank of each of the last dimension's values, 0 for the lowest; equal ones rank in their order."""
    return values.argsort(dim=-1, stable=True).argsort(dim=-1)
