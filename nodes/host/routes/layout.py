"""Where the kept tokens stand in a sequence."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Layout:
    """Positions of a sequence: those that run, [rows, K], those that may be dropped, [rows, T], where the latter start,
    and how many of them were dropped and are left."""

    kept: Tensor
    droppable: Tensor
    start: int
    dropped: int
    left: int

    def moved(self, positions: Any) -> Any:
        """A position, or ranges (start, stop, ...) of positions, once the others are gone."""
        if isinstance(positions, list):
            return [(self.moved(first), self.moved(stop), *rest) for first, stop, *rest in positions]
        if positions is None or positions <= self.start:
            return positions
        if positions < self.start + self.dropped + self.left:
            raise ValueError("Token Route cannot drop tokens here: the model treats some of the image's differently.")
        return positions - self.dropped
