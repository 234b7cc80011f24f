"""What the token route must know about a family of the host's transformers.

A stage is a list of blocks that run one after another. What a family has to say about it: which argument of a block
holds the image tokens, where text tokens stand, which other arguments are indexed by token, and which tokens of the
sequence may be dropped. Everything else is in routing.py, cut.py, packed.py and block.py.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from ....sparse_model.method.sparsity import Route, short_route, trainers_route
from .forms import FORM, Form

Span = tuple[int, int]
"""Where the droppable tokens of a sequence stand: their start and their count."""


@dataclass(frozen=True)
class Stage:
    """One list of blocks, or a part of it.

    `output` is the place of the image tokens in what a block returns, None if it is all. `text` names the argument with
    the text tokens where they are a stream of their own; `joint` says that they stand in the sequence itself. `twin`
    names a second stream of the same image tokens, in the other place of what a block returns; `sound` one of other
    tokens in that place. `anew` says that its tokens are not those that the stage before it returned. `positional`
    names arguments that the block's own signature does not. `form` is how the block takes all that. `by_place` names
    parts of the block that treat every token on its own, by its place in the whole sequence.

    For the cost, beginnings of the names of weights: `over_text` those that run over text tokens, `over_both` over text
    and image tokens beside them, `reread` over text once more, for a cross-attention behind a joint one, `over_image`
    those of a further self-attention among image tokens, `modulation` those that run once, as all do that have "mod" in
    their names.
    """

    path: str
    tokens: str
    text: str | None = None
    output: int | None = None
    joint: bool = False
    twin: str | None = None
    sound: str | None = None
    anew: bool = False
    part: Callable[[nn.Module], slice] = lambda network: slice(None)
    positional: tuple[str, ...] = ()
    form: Form = FORM
    by_place: tuple[str, ...] = ()
    over_text: tuple[str, ...] = ()
    over_both: tuple[str, ...] = ()
    reread: tuple[str, ...] = ()
    over_image: tuple[str, ...] = ()
    modulation: tuple[str, ...] = ()
    uncounted: tuple[str, ...] = ()

    @property
    def streams(self) -> tuple[tuple[str, int], ...]:
        """(argument, place in what a block returns) of every stream of image tokens."""
        place = self.output or 0
        return ((self.tokens, place),) if self.twin is None else ((self.tokens, place), (self.twin, 1 - place))


def whole(network: nn.Module, grid: tuple[int, ...], inputs: Mapping[str, Any], length: int) -> Span:
    """The image comes first; what follows it (reference images) is never dropped."""
    return 0, math.prod(grid)


@dataclass(frozen=True)
class Family:
    """How the transformers of one family take their tokens.

    `networks`   names of the host's classes.
    `patch`      network -> size of a patch over the last dimensions of a latent.
    `span`       (network, patches along each dimension, inputs of the call, length of the sequence without joint text)
                 -> Span.
    `indexed`    argument -> the dimensions that may be indexed by token; a dimension of size 1 is left alone. Where it
                 is dimension 0 there are no rows, and the family runs one row per call.
    `stretched`  argument -> its number of dimensions where it is [B, n, ...], one for each stretch of tokens (a frame).
    `slices`     arguments that count tokens: a position, or ranges of positions.
    `common`     arguments without rows: one value for all rows of a batch.
    `folded`     arguments whose rows are folded into their second dimension.
    `stacked`    arguments that may hold several batches of rows, one behind the other.
    `cut`        argument -> how one that is no tensor is cut down to a Layout's kept tokens.
    `packed`     all attention in its blocks is among their own tokens, by the host's function for it, so that branches
                 can stand side by side in one sequence.
    `pooled`     network -> whether the prompt modulates its blocks, as well as time.
    `one_row`    the network takes one row at a time.
    `text_last`  network -> whether text follows the image in joint sequences.
    `route`      what "family default" means; saved workflows depend on it.
    """

    name: str
    networks: tuple[str, ...]
    stages: tuple[Stage, ...]
    patch: Callable[[nn.Module], Any] = lambda network: network.patch_size
    span: Callable[[nn.Module, tuple[int, ...], Mapping[str, Any], int], Span] = whole
    indexed: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    stretched: Mapping[str, int] = field(default_factory=dict)
    slices: tuple[str, ...] = ()
    common: tuple[str, ...] = ()
    folded: tuple[str, ...] = ()
    stacked: tuple[str, ...] = ()
    cut: Mapping[str, Callable[[Any, Any], Any]] = field(default_factory=dict)
    packed: bool = False
    pooled: Callable[[nn.Module], bool] = lambda network: False
    one_row: bool = False
    text_last: Callable[[nn.Module], bool] = lambda network: False
    route: Callable[[int], Route] = short_route

    def trainers(self, depth: int) -> Route:
        """What its trainers route, or would: their advice, where nobody is known to have followed it."""
        return (trainers_route if self.route is short_route else self.route)(depth)

    @property
    def rowwise(self) -> bool:
        return any(0 in dims for dims in self.indexed.values())

    def sides(self, network: nn.Module, dimensions: int) -> tuple[int, ...]:
        """A patch's size along each dimension of a latent."""
        patch = self.patch(network)
        sides = (patch,) * 2 if isinstance(patch, int) else tuple(patch)
        return ((1,) * (dimensions - len(sides)) + sides)[-dimensions:]

    def grid(self, network: nn.Module, size: tuple[int, ...]) -> tuple[int, ...]:
        """Patches along each dimension of a latent [B, C, *size]; latents are padded to whole patches."""
        return tuple(-(-length // side) for length, side in zip(size, self.sides(network, len(size)), strict=True))


def last(network: nn.Module, grid: tuple[int, ...], inputs: Mapping[str, Any], length: int) -> Span:
    """Text and reference images, then the image."""
    return length - math.prod(grid), math.prod(grid)
