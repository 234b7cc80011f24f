"""What a block of the host is called with, cut down to some rows' kept tokens."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial, wraps
from typing import Any, NoReturn

import torch
from torch import Tensor

from .family import Family, Stage
from .layout import Layout
from .places import Places
from .routing import Arguments, Call, Group
from .rows import flat, map_tensors, pick, repeated, rows_of, stretched
from .speech import ByRow

GEOMETRY = ("grid_sizes",)
"""What the host's transformer_options say about the whole grid of tokens, for patches inside a block."""

DEVICE_ERRORS = (torch.cuda.OutOfMemoryError, getattr(torch, "AcceleratorError", torch.cuda.OutOfMemoryError))
"""What the host takes for want of memory, or for a device that failed at work of any kind."""


@dataclass(frozen=True)
class Cut:
    """Takes the kept tokens of a `group` of rows out of a block's arguments. `given` are the block's tokens, [N, L, D]
    or [N, T, H, W, D]; `over_time` says that the latter are modulated differently over time. The tokens are in their
    order, or `shuffled`."""

    call: Call
    stage: Stage
    route: int
    group: Group
    given: Tensor
    layout: Layout
    over_time: bool
    shuffled: bool = False

    @classmethod
    def of(
        cls, call: Call, stage: Stage, route: int, group: Group, arguments: Arguments, shuffled: bool = False
    ) -> "Cut":
        given = arguments[stage.tokens]
        length = flat(given).shape[1]
        layout = call.layout(group, length, call.text(stage, length), route, shuffled)
        return cls(call, stage, route, group, given, layout, bool(_varying(call.family, arguments)), shuffled)

    @property
    def length(self) -> int:
        return flat(self.given).shape[1]

    @property
    def places(self) -> Places:
        return Places(self.layout.kept, self.length)

    def arguments(self, arguments: Arguments) -> Arguments:
        """All of them, for these rows and tokens."""
        family, stage = self.call.family, self.stage
        here = {name for name, value in arguments.items() if value is not None}
        cut = self.call.select(arguments, self.group.rows, leave=(*family.indexed, stage.tokens))
        spread = {name: stretched(cut[name], self.length) for name in _varying(family, arguments)}
        cut |= {name: pick(value, self.layout.kept) for name, value in spread.items()}
        cut |= {name: self.table(name, arguments[name]) for name in here & set(family.indexed)}
        cut |= {name: change(cut[name], self.layout) for name, change in family.cut.items() if name in here}
        cut |= {name: self.layout.moved(cut[name]) for name in here & set(family.slices)}
        cut[stage.tokens] = self.laid_out(pick(flat(self.given)[self.group.rows], self.layout.kept))
        if stage.twin is not None:
            cut[stage.twin] = pick(cut[stage.twin], self.layout.kept)
        if "transformer_options" in here:
            cut["transformer_options"] = self.options(cut["transformer_options"])
        return cut

    def laid_out(self, kept: Tensor) -> Tensor:
        """Kept tokens [rows, K, D] in as many dimensions as the block's own."""
        if self.given.ndim == 3:
            return kept
        return kept.unflatten(1, (-1, 1, 1) if self.over_time else (1, -1, 1))

    def table(self, name: str, value: Any) -> Any:
        """A table, or several, with the entries of the kept tokens."""
        key = name, self.group, self.route, self.length, self.shuffled
        return self.call.again(key, value, partial(map_tensors, partial(self._table, name)))

    def _table(self, name: str, value: Tensor) -> Tensor:
        dims = self.call.family.indexed[name]
        if value.ndim == self.given.ndim > 3:  # a value for every token, laid out as they are
            return self.laid_out(pick(flat(value)[self.group.rows], self.layout.kept))
        if 0 in dims and value.shape[0] == self.length:  # no rows: there is one row per call
            return value[self.layout.kept[0]]
        if any(dim + value.ndim == 0 for dim in dims):  # one for all rows
            value = value.unsqueeze(0)
        value = rows_of(value, self.call.rows, self.group.rows)
        for dim in {dim % value.ndim for dim in dims} - {0}:
            if value.shape[dim] > 1:
                value = pick(value, self._kept(name, value, value.shape[dim]), dim)
        return value

    def _kept(self, name: str, value: Tensor, size: int) -> Tensor:
        """The kept positions along a dimension of a table: of the block's own sequence, or with the text in it."""
        if size == self.length:
            return self.layout.kept
        joint = 0 if self.stage.text is None else self.call.text_stream
        if size != self.length + joint:
            raise ValueError(
                f"Token Route cannot tell how {name} of shape {tuple(value.shape)} belongs to {self.length} tokens."
            )
        return self.call.layout(self.group, size, joint, self.route, self.shuffled).kept

    def entry(self, stream: int) -> Tensor:
        """The droppable tokens of a stream as they entered the route, [rows, T, D]."""
        entry = self.call.entry(self.route, self.stage)
        entered = entry.streams[stream]
        layout = self.call.layout(self.group, entered.shape[1], entry.text, self.route)
        return pick(entered[self.group.rows], layout.droppable)

    def options(self, options: dict[str, Any]) -> dict[str, Any]:
        """transformer_options for what other nodes do inside the block: data per token is cut, what cannot be is
        withheld, and a patch that fails on kept tokens is named."""
        cut = {**options, **{name: Withheld(name) for name in GEOMETRY if name in options}}
        if "img_slice" in options:
            cut["img_slice"] = [*map(self.layout.moved, options["img_slice"])]
        if "model_patch_data" in options:
            cut["model_patch_data"] = {p: self._data(p, data) for p, data in options["model_patch_data"].items()}
        if "patches" in options:
            grid = options.get("grid_sizes")
            cut["patches"] = {
                name: [self._patch(patch, grid) for patch in patches] for name, patches in options["patches"].items()
            }
        if "optimized_attention_override" in options:
            cut["optimized_attention_override"] = named(options["optimized_attention_override"])
        return cut

    def _patch(self, patch: Callable, grid: Any) -> Callable:
        """Another node's patch, for kept tokens out of a `grid`."""
        if isinstance(patch, ByRow):
            return named(patch.at(self.places, grid), name_of(patch.patch))
        return named(patch)

    def _data(self, patch: Any, data: Any) -> Any:
        """What a patch knows about every token, [b, L, ...], for the kept ones."""

        def per_token(value: Tensor) -> Tensor:
            rows = self.group.stop - self.group.start
            if value.ndim < 2 or value.shape[1] != self.length or rows % value.shape[0]:
                raise ValueError(
                    f"Token Route cannot tell how the data of {name_of(patch)}, of shape {tuple(value.shape)}, belongs "
                    f"to {self.length} tokens; take that node out, or route other blocks."
                )
            return pick(repeated(value, rows), self.layout.kept)

        return map_tensors(per_token, data)


class Withheld:
    """In place of what is said about the whole grid of tokens: who reads it inside a routed block is told."""

    def __init__(self, name: str):
        self.name = name

    def _read(self, *_: Any) -> NoReturn:
        raise ValueError(
            f"{self.name}, the frames, rows and columns of all tokens, does not hold where Token Route leaves some out"
        )

    __iter__ = __getitem__ = __len__ = __int__ = __index__ = _read


def named(patch: Callable, name: str | None = None) -> Callable:
    """Another node's patch inside a block; ValueError with its name where it fails on the kept tokens."""

    @wraps(patch)
    def on_kept_tokens(*args: Any, **kwargs: Any) -> Any:
        try:
            return patch(*args, **kwargs)
        except (RuntimeError, ValueError, IndexError, AssertionError) as problem:
            said = " ".join(str(problem).split())
            if isinstance(problem, DEVICE_ERRORS) or "out of memory" in said.lower():
                raise  # the host tries again with less
            raise ValueError(
                f"{name or name_of(patch)} cannot work inside a block that drops tokens ({said}): take that node out, "
                "or let Token Route route other blocks."
            ) from problem

    return on_kept_tokens


def name_of(patch: Any) -> str:
    """Module and name of a function, or of an object's class."""
    kind = patch if hasattr(patch, "__qualname__") else type(patch)
    return f"{kind.__module__}.{kind.__qualname__}"


def _varying(family: Family, arguments: Arguments) -> list[str]:
    """The arguments that hold one value for each of several stretches of tokens."""
    values = {name: (arguments.get(name), ndim) for name, ndim in family.stretched.items()}
    return [name for name, (v, ndim) in values.items() if v is not None and v.ndim == ndim and v.shape[1] > 1]
