"""What goes by where a token stands in the whole picture, although a block runs on kept tokens: it is given these in
their places, zeros between them. That is exact for whatever treats every token on its own."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from .rows import pick, put_back


@dataclass(frozen=True)
class Places:
    """The places `kept` [rows, K] of the tokens that are left in a sequence of `length`."""

    kept: Tensor
    length: int

    def spread(self, tokens: Tensor) -> Tensor:
        """[rows, K, D] -> [rows, length, D]"""
        return put_back(tokens.new_zeros(len(tokens), self.length, tokens.shape[-1]), self.kept, tokens)

    def gathered(self, tokens: Tensor) -> Tensor:
        """[rows, length, D] -> [rows, K, D]"""
        return pick(tokens, self.kept)


@contextmanager
def over_all_places(block: nn.Module, names: Sequence[str], places: Places) -> Iterator[None]:
    """The named parts of a block are given its tokens, their first argument, in their places."""
    parts = [getattr(block, name) for name in names]

    def over_all(part: nn.Module) -> Any:
        original = part.forward

        def forward(tokens: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            return places.gathered(original(places.spread(tokens), *args, **kwargs))

        return forward

    before = [part.__dict__.get("forward") for part in parts]
    for part in parts:
        part.__dict__["forward"] = over_all(part)
    try:
        yield
    finally:
        for part, shadowed in zip(parts, before, strict=True):
            del part.__dict__["forward"]
            if shadowed is not None:
                part.__dict__["forward"] = shadowed
