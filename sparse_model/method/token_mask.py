"""A mask over a picture or a video whose tokens are never left out."""

import logging
from collections.abc import Sequence

import torch
from torch import Tensor

from .tokens import Staying


class TokenMask:
    """A mask [B, H, W] of any size, laid over latents of `size` (height, width) or (frames, height, width): a token of
    which it covers any pixel stays. ValueError for latents of other dimensions.

    Over pictures its entries belong to the samples of a batch, over a video to its frames; one serves all.
    """

    def __init__(self, mask: Tensor, size: Sequence[int]):
        if len(size) not in (2, 3):
            raise ValueError("A mask needs a latent of a picture or a video to lie on; leave mask open for this model.")
        self.size = tuple(size)
        self.covered = over_latent(mask, self.size)
        self._known: dict[tuple, Staying] = {}
        self._said = False

    def over(self, size: Sequence[int], patch: Sequence[int], part: slice = slice(None)) -> Staying | None:
        """The tokens that stay in a latent of `size`, cut into patches with one side per dimension; `part` are those
        that a network can leave out at all. None where a network sees another size: a region, or a window of frames."""
        if tuple(size) != self.size:
            if not self._said:
                self._said = True
                logging.warning(
                    "Sparse Guidance: the mask lies on the whole latent of %s; in parts of it (%s) it keeps nothing.",
                    " x ".join(map(str, self.size)),
                    " x ".join(map(str, size)),
                )
            return None
        key = tuple(patch), part.start, part.stop
        if key not in self._known:
            self._known[key] = Staying(over_patches(self.covered, patch).flatten(1)[:, part])
        return self._known[key]


def over_latent(mask: Tensor, size: tuple[int, ...]) -> Tensor:
    """[B, H, W] -> whether it covers any of what belongs to a latent pixel: [B or 1, *size]."""
    shown = (mask.detach().cpu().reshape(-1, 1, *mask.shape[-2:]) > 0).float()
    covered = torch.nn.functional.adaptive_max_pool2d(shown, size[-2:]).squeeze(1) > 0  # [B, h, w]
    if len(size) == 2:
        return covered
    if size[0] == 1:
        return covered.unsqueeze(1)
    frames, times = len(covered), size[0]
    if frames == 1:
        return covered.expand(times, -1, -1).unsqueeze(0)
    if frames > times and (frames - 1) % (times - 1) == 0:  # video VAEs encode the first frame on its own
        rest = covered[1:].unflatten(0, (times - 1, -1)).any(dim=1)
        return torch.cat([covered[:1], rest]).unsqueeze(0)
    along = covered.float().flatten(1).T.unsqueeze(1)  # [h * w, 1, frames]
    return torch.nn.functional.adaptive_max_pool1d(along, times).squeeze(1).T.reshape(1, *size) > 0


def over_patches(covered: Tensor, patch: Sequence[int]) -> Tensor:
    """[B, *size] -> whether any of a patch is covered: [B, *grid]; latents are padded to whole patches."""
    for dim, side in enumerate(patch, 1):
        missing = -covered.shape[dim] % side
        if missing:
            shape = [*covered.shape]
            shape[dim] = missing
            covered = torch.cat([covered, covered.new_zeros(shape)], dim=dim)
        covered = covered.unflatten(dim, (-1, side)).any(dim=dim + 1)
    return covered
