"""InfiniteTalk: its patches inside Wan's blocks give every frame's tokens the sound of that frame.

The host's patches take one row at a time and the whole grid of tokens. A routed evaluation has a row for every branch,
and kept tokens only.
"""

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .places import Places
from .rows import put_back

MAP = "x_ref_attn_map"
"""Where the patch that finds the speakers leaves for the other one how much each token, [speakers, L], is of each."""


def one_row_at_a_time(patches: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """The patches of a call by kind, those of InfiniteTalk made fit for several rows."""
    kinds = {"MultiTalkCrossAttnPatch": Speech, "MultiTalkGetAttnMapPatch": Speakers}

    def fit(patch: Any) -> Any:
        kind = kinds.get(type(patch).__name__)
        return patch if kind is None else kind(patch)

    return {name: [*map(fit, given)] for name, given in patches.items()}


@dataclass(frozen=True)
class ByRow:
    """The host's `patch` over several rows: of all tokens of a `grid`, or of those that are left, in their places."""

    patch: Any
    places: Places | None = None
    grid: Any = None

    def at(self, places: Places, grid: Any) -> "ByRow":
        return type(self)(self.patch, places, grid)


class Speech(ByRow):
    """Adds the sound, which treats every token on its own: that it runs in its place is exact."""

    def __call__(self, args: dict[str, Any]) -> Tensor:
        options, tokens = args["transformer_options"], args["x"]
        if self.places is not None:
            options = {**options, "grid_sizes": self.grid}
        maps = options.pop(MAP, [None] * len(tokens))
        full = tokens if self.places is None else self.places.spread(tokens)
        rows = [
            self.patch({**args, "x": full[i : i + 1], "transformer_options": {**options, MAP: found}})
            for i, found in enumerate(maps)
        ]
        spoken = torch.cat(rows)
        return spoken if self.places is None else self.places.gathered(spoken)


class Speakers(ByRow):
    """Tells two speakers apart by attention to the first frame. Kept tokens attend to what is left of that frame."""

    def __call__(self, args: dict[str, Any]) -> Tensor:
        args["transformer_options"][MAP] = [*self._maps(args)]
        return args["x"]

    def _maps(self, args: dict[str, Any]) -> Iterable[Tensor]:
        for i in range(len(args["q"])):
            row = {name: args[name][i : i + 1] for name in ("x", "q", "k")}
            yield self._map(row, args["transformer_options"], i)

    def _map(self, row: dict[str, Tensor], options: dict[str, Any], i: int) -> Tensor:
        """[speakers, L]; in the place of a token that was left out stands what the first kept one is, which no result
        and no extreme depends on."""
        if self.places is None:
            return self._found(self.patch, row, options, options["grid_sizes"])
        kept, masks = self.places.kept[i], self.patch.ref_target_masks
        frame = kept < masks.shape[1]  # the kept tokens of the first frame
        patch = copy.copy(self.patch)
        patch.ref_target_masks = masks.to(kept.device)[:, kept[frame]]
        keys = row["k"][:, frame]
        if not keys.shape[1]:  # nothing is left that would tell
            found = row["q"].new_zeros(len(masks), len(kept))
        else:
            found = self._found(patch, {**row, "k": keys}, options, (1, 1, keys.shape[1]))
        spread = found[:, :1].expand(-1, self.places.length)
        return put_back(spread.unsqueeze(-1), kept.expand(len(found), -1), found.unsqueeze(-1)).squeeze(-1)

    @staticmethod
    def _found(patch: Any, row: dict[str, Tensor], options: dict[str, Any], grid: Any) -> Tensor:
        own = {**options, "grid_sizes": grid}
        patch({**row, "transformer_options": own})
        return own[MAP]
