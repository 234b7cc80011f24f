"""Pictures on white, changed a little on the fly, so that a network sees no picture twice."""

import math
from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

BLANK = 0.03  # how far from white, of the range [-1, 1], a pixel still counts as paper


@dataclass(frozen=True)
class Augmentation:
    """How far pictures are changed; everything off as it stands.

    mirror      share of the pictures that are mirrored, of those that mean the same in a mirror
    scale       up to this fraction smaller, in the middle; every second picture keeps its size and so its sharp edges
    shift       up to this fraction of a side, in whole pixels and only over white margin: nothing is cut off
    hue         radians around the grey axis: white, black and greys, and with them monochrome styles, stay as they are
    saturation  fraction more or less, likewise
    """

    mirror: float = 0.0
    scale: float = 0.0
    shift: float = 0.0
    hue: float = 0.0
    saturation: float = 0.0


def augment(x: Tensor, mirrors: Tensor, settings: Augmentation, generator: torch.Generator) -> Tensor:
    """x [B, C, H, W] in [-1, 1], white 1; mirrors [B] bool, whether a picture may be mirrored -> like x."""
    # always as many, so that settings do not disturb one another
    draws = torch.rand(7, len(x), generator=generator, device=x.device)
    mirrored = mirrors & (draws[0] < settings.mirror)
    if settings.mirror:
        x = torch.where(mirrored.view(-1, 1, 1, 1), x.flip(3), x)
    if settings.scale:
        smaller = (draws[1] < 0.5).view(-1, 1, 1, 1)
        x = torch.where(smaller, shrink(x, 1 - settings.scale * draws[2]), x)
    if settings.shift:
        x = shift(x, 2 * draws[3:5] - 1, settings.shift)
    if (settings.hue or settings.saturation) and x.shape[1] == 3:
        x = recolour(x, settings.hue * (2 * draws[5] - 1), 1 + settings.saturation * (2 * draws[6] - 1))
    return x


def shrink(x: Tensor, size: Tensor) -> Tensor:
    """x [B, C, H, W] drawn `size` [B] <= 1 times as large in the middle of a white page."""
    matrix = x.new_zeros(len(x), 2, 3)
    matrix[:, 0, 0] = matrix[:, 1, 1] = 1 / size
    places = F.affine_grid(matrix, list(x.shape), align_corners=False)
    return (F.grid_sample(x - 1, places, mode="bicubic", align_corners=False) + 1).clamp(-1, 1)


def shift(x: Tensor, fractions: Tensor, most: float) -> Tensor:
    """x [B, C, H, W] moved down and right by `fractions` [2, B] in [-1, 1] of `most` sides or of the white margin on
    that side, whichever is less."""
    ink = (x < 1 - BLANK).any(dim=1)  # [B, H, W]
    for axis, part in ((2, fractions[0]), (3, fractions[1])):
        side = x.shape[axis]
        drawn = ink.any(dim=4 - axis)  # [B, side]
        before = drawn.float().argmax(dim=1)
        after = drawn.flip(1).float().argmax(dim=1)
        room = torch.where(part < 0, before, after).clamp(max=math.floor(most * side))
        moved = (part.abs() * (room + 1)).floor().minimum(room) * part.sign()
        # what rolls out at one edge and in at the other is white
        source = (torch.arange(side, device=x.device) - moved.long().unsqueeze(1)) % side  # [B, side]
        x = x.gather(axis, source.view(len(x), 1, *((side, 1) if axis == 2 else (1, side))).expand_as(x))
    return x


def recolour(x: Tensor, angle: Tensor, saturation: Tensor) -> Tensor:
    """Colours of x [B, 3, H, W] turned by angle [B] radians around the grey axis, away from it times saturation [B]."""
    grey, turn, one = _grey_axis(x.device)
    around = torch.cos(angle).view(-1, 1, 1) * (one - grey) + torch.sin(angle).view(-1, 1, 1) * turn
    matrix = grey + saturation.view(-1, 1, 1) * around  # [B, 3, 3]
    return (matrix @ x.flatten(2)).view_as(x).clamp(-1, 1)


@cache
def _grey_axis(device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """[3, 3] each: what is grey of a colour, its cross product with grey, and all of it. Uploaded once: an upload in a
    step waits for the step before."""
    turn = torch.tensor([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]]) / 3**0.5
    return torch.full((3, 3), 1 / 3).to(device), turn.to(device), torch.eye(3).to(device)
