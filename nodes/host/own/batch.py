"""What a network of this pack is asked about a batch, and what other nodes have made of the batch on its way there."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ....sparse_model.method.branches import Prepared
from ..wire import check_rows


@dataclass(frozen=True, eq=False)
class Batch:
    """A batch of `rows` rows as the host's model is given it, at the noise levels `sigma` [N or fewer] of a
    `sampling`. `doubted`: another node may have given chunks of one input other values; `wrapped`: one of another node
    stands around the network itself."""

    evaluation: Prepared
    rows: int
    sigma: Tensor
    sampling: Any
    linear: bool
    doubted: bool
    wrapped: bool

    def hosts_levels(self, x: Tensor) -> Tensor:
        """The noise levels [N] of x [N, ...] by which the host takes the output of the network."""
        return self.sigma.to(x.device, torch.float32).repeat(len(x) // len(self.sigma))

    def levels(self, timesteps: Tensor, rows: int) -> Tensor:
        """The noise levels [rows] of what the network is given. The host's timesteps are sigma in the unit of a
        sampling, which nodes may replace, so they are read back only where somebody has changed them."""
        sigma = self.sigma.to(timesteps.device, torch.float32)
        if self.wrapped:
            own, read = self.sampling.timestep(sigma).float(), self._read(timesteps)
            sigma = torch.where(timesteps == own, sigma, read) if own.shape == timesteps.shape else read
        return sigma.repeat(rows // len(sigma))

    def _read(self, timesteps: Tensor) -> Tensor:
        if self.linear:  # of a flow; its sampling's own inverse shifts
            return timesteps / self.sampling.timestep(torch.ones_like(timesteps))
        return self.sampling.sigma(timesteps)

    def evaluation_for(self, x: Tensor, *values: Tensor | None) -> Prepared:
        """The evaluation for x [N, ...] and the further values [N, ...] that the network is given: chunks of one input
        that another node has given other ones are inputs of their own. That is compared, which waits for the device.
        ValueError for another number of rows, of which it cannot be told whose they are."""
        sources = self.evaluation.sources
        if len(sources) > 1:
            check_rows(len(x), self.rows, len(sources))
        if not self.doubted or len(set(sources)) == len(sources):
            return self.evaluation
        given = [value.unflatten(0, (len(sources), -1)) for value in (x, *values) if value is not None]
        pairs = [(sources.index(source), chunk) for chunk, source in enumerate(sources)]
        same = [(value[a] == value[b]).all() for value in given for a, b in pairs if a != b]
        return (
            self.evaluation
            if bool(torch.stack(same).all())
            else replace(self.evaluation, sources=tuple(range(len(sources))))
        )
