"""Blocks of the host that take and return their tokens in another form than a route wants: [rows, tokens, width] by
name, rows first."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from torch import Tensor

from .layout import Layout
from .rows import pick

Arguments = dict[str, Any]


class Form:
    """The form that most blocks have. A form opens what a block is given and returns, and closes it again."""

    def argument(self, tokens: str) -> str:
        """The block's own argument that holds the tokens called so."""
        return tokens

    def opened(self, arguments: Arguments) -> Arguments:
        return arguments

    def closed(self, arguments: Arguments) -> Arguments:
        return arguments

    def opened_output(self, output: Any) -> Any:
        return output

    def closed_output(self, output: Any) -> Any:
        return output


@dataclass(frozen=True)
class RowsInside(Form):
    """Rows are not the first dimension: of the arguments named in `dims`, and of what the block returns, `output`."""

    dims: Mapping[str, int]
    output: int

    def opened(self, arguments: Arguments) -> Arguments:
        return arguments | {name: value.movedim(dim, 0) for name, dim, value in self._turned(arguments)}

    def closed(self, arguments: Arguments) -> Arguments:
        return arguments | {name: value.movedim(0, dim) for name, dim, value in self._turned(arguments)}

    def _turned(self, arguments: Arguments) -> list[tuple[str, int, Tensor]]:
        return [(name, dim, arguments[name]) for name, dim in self.dims.items() if arguments.get(name) is not None]

    def opened_output(self, output: Tensor) -> Tensor:
        return output.movedim(self.output, 0)

    def closed_output(self, output: Tensor) -> Tensor:
        return output.movedim(0, self.output)


@dataclass(frozen=True)
class NoRows(Form):
    """The argument `name` and what the block returns are one row's tokens, [L, D]."""

    name: str

    def opened(self, arguments: Arguments) -> Arguments:
        return arguments | {self.name: arguments[self.name].unsqueeze(0)}

    def closed(self, arguments: Arguments) -> Arguments:
        return arguments | {self.name: arguments[self.name].squeeze(0)}

    def opened_output(self, output: Tensor) -> Tensor:
        return output.unsqueeze(0)

    def closed_output(self, output: Tensor) -> Tensor:
        return output.squeeze(0)


@dataclass(frozen=True)
class Together(Form):
    """Several streams are one argument, a tuple; the block returns such a tuple. Modulation per frame is opened too."""

    name: str
    streams: tuple[str, ...]

    def argument(self, tokens: str) -> str:
        return self.name if tokens in self.streams else tokens

    def opened(self, arguments: Arguments) -> Arguments:
        rest = {name: PerFrame.opened(value) for name, value in arguments.items() if name != self.name}
        return dict(zip(self.streams, arguments[self.name], strict=True)) | rest

    def closed(self, arguments: Arguments) -> Arguments:
        rest = {name: value for name, value in arguments.items() if name not in self.streams}
        closed = {name: value.closed() if isinstance(value, PerFrame) else value for name, value in rest.items()}
        return {self.name: tuple(arguments[name] for name in self.streams)} | closed


@dataclass(frozen=True)
class PerFrame:
    """LTX-2's CompressedTimestep (the host's class `kind`): modulation [rows, n, D] of n stretches of `each` tokens.
    `frames` [rows, K] are the stretches of the tokens that are left, None for all."""

    kind: type
    data: Tensor
    each: int
    frames: Tensor | None = None

    @classmethod
    def opened(cls, value: Any) -> Any:
        if not hasattr(value, "patches_per_frame"):
            return value
        return cls(type(value), value.data, value.patches_per_frame)

    def kept(self, layout: Layout) -> "PerFrame":
        """For some tokens; one value for all tokens stays as it is."""
        if self.data.shape[1] == 1:
            return self
        if self.each == 1:
            return PerFrame(self.kind, pick(self.data, layout.kept), 1)
        return PerFrame(self.kind, self.data, 1, layout.kept // self.each)

    def closed(self) -> Any:
        kind = self.kind if self.frames is None else _of_some_tokens(self.kind)
        made = kind.__new__(kind)
        made.data, made.patches_per_frame = self.data, self.each
        made.batch_size, made.num_frames, made.feature_dim = self.data.shape
        if self.frames is not None:
            made.frames = self.frames
        return made


@cache
def _of_some_tokens(kind: type) -> type:
    """The host's class, which spreads what it has computed per frame over the tokens that are left."""

    class OfSomeTokens(kind):
        def expand_for_computation(self, *args: Any, **kwargs: Any) -> tuple[Tensor, ...]:
            return tuple(pick(value, self.frames) for value in super().expand_for_computation(*args, **kwargs))

        def expand(self) -> Tensor:
            return pick(self.data, self.frames)

    return OfSomeTokens


FORM = Form()
