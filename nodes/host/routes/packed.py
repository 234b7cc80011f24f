"""Branches of one input side by side in the sequence of a block, which so runs once for all of them.

Work on a GPU is launched piece by piece, for few tokens as for many, and launching can take longer than the work. Every
layer but attention treats tokens one by one, and what modulates them is the same for branches of one input. Attention
goes through a function in the host's transformer_options, which here keeps the branches apart.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ....sparse_model.method.tokens import put, take
from .cut import Cut
from .family import Stage
from .routing import Arguments, Call, Group, remembered
from .rows import map_tensors

OVERRIDE = "optimized_attention_override"
"""Where the host looks for what runs in place of its attention."""

Range = tuple[int, int]
"""Start and length of a part of a sequence."""


class Apart(Exception):
    """Branches cannot stand side by side in this block; nothing that it was given has changed."""


@dataclass
class Attention:
    """The host's attention, for each branch on its own. `sequences` says by the length of a sequence which parts of it
    belong to each branch, `options` what each branch alone would be given, if another node has attention of its own
    there."""

    sequences: dict[int, list[list[Range]]]
    options: Sequence[Arguments] = ()
    calls: int = field(default=0, init=False)

    def __call__(self, attention: Callable, q: Tensor, k: Tensor, v: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """q, k, v [B, L, H * d], or [B, H, L, d] with `skip_reshape`, heads, a mask -> what the host's own makes of
        them; Apart for a sequence that is not known, for keys of another one, and under a mask."""
        dim = 2 if kwargs.get("skip_reshape") else 1
        branches = self.sequences.get(q.shape[dim])
        masks = [*args[1:2], kwargs.get("mask")]
        if branches is None or k.shape[dim] != q.shape[dim] or any(mask is not None for mask in masks):
            raise Apart
        self.calls += 1
        along = 2 if kwargs.get("skip_output_reshape") else 1
        found = {}
        for branch, parts in enumerate(branches):
            own = [_joined([x.narrow(dim, *part) for part in parts], dim) for x in (q, k, v)]
            if self.options:
                options = self.options[branch]
                output = options[OVERRIDE](attention, *own, *args, **{**kwargs, "transformer_options": options})
            else:
                output = attention(*own, *args, **kwargs)
            outputs = output.split([length for _, length in parts], along)
            found |= {start: output for (start, _), output in zip(parts, outputs, strict=True)}
        return torch.cat([found[start] for start in sorted(found)], along)


class Index(NamedTuple):
    """Which tokens of all branches stand side by side, [B, sum of kept]: their positions `within` a row, and counted
    `through` all rows of the batch."""

    within: Tensor
    through: Tensor


@remembered
def index(call: Call, groups: tuple[Group, ...], length: int, text: int, route: int, split: bool = False) -> Index:
    """The kept tokens of sequences with `text` joint text tokens, branch by branch; or, where text and image are two
    streams (`split`), what comes first of all branches and then the rest of all."""
    layouts = [call.layout(group, length, text, route) for group in groups]
    if not all(layout.left for layout in layouts):
        raise Apart
    rows = [torch.arange(group.start, group.stop, device=call.device).unsqueeze(1) for group in groups]
    within = [layout.kept for layout in layouts]
    through = [kept + length * row for kept, row in zip(within, rows, strict=True)]
    if split:
        place = -text if call.family.text_last(call.network) else text
        within, through = ([p[:, :place] for p in q] + [p[:, place:] for p in q] for q in (within, through))
    return Index(torch.cat(within, dim=1), torch.cat(through, dim=1))


@dataclass(frozen=True)
class Packed:
    """Branches of one input in a block: a bundle of `groups` of rows. `tokens` [N, L, D] are all that the block was
    given; side by side those of the bundle are [B, sum of kept, D]."""

    call: Call
    stage: Stage
    route: int
    tokens: Tensor
    groups: tuple[Group, ...]

    @property
    def place(self) -> tuple[int, int, int]:
        """What the kept tokens depend on: length of the sequence, joint text tokens in it, route."""
        length = self.tokens.shape[1]
        return length, self.call.text(self.stage, length), self.route

    @property
    def text(self) -> int:
        """Text tokens of one branch in a stream of their own."""
        return 0 if self.stage.text is None else self.call.text_stream

    def run(self, arguments: Arguments, run: Callable[[Arguments], Any], last: bool) -> list[Any]:
        """What the block returns for the rows of each group, as if it had run on its own, or once for all if the bundle
        is all; at the `last` block of a route its dropped tokens are those that entered it. Apart if that cannot be."""
        attention = Attention(self.sequences(), self.options(arguments))
        packed = self.arguments(arguments)
        packed["transformer_options"] = {**packed["transformer_options"], OVERRIDE: attention}
        output = run(packed)
        if not attention.calls:  # another node's, which asks for nothing in its place
            self.call.unheard = True
            raise Apart
        place, whole = self.stage.output, len(self.groups) == len(self.call.groups)
        tokens = self.back(output if place is None else output[place], last)
        images = [tokens] if whole else [tokens[group.rows] for group in self.groups]
        if place is None:
            return images
        text = output[1 - place]
        texts = [None] * len(self.groups) if text is None else text.chunk(len(self.groups), dim=1)
        if whole:
            texts = [text if text is None else torch.cat(texts)]
        return [(text, image) if place else (image, text) for image, text in zip(images, texts, strict=True)]

    def arguments(self, arguments: Arguments) -> Arguments:
        """Those of the block for one group of rows, with the tokens of all of them, which it may write into."""
        family, stage = self.call.family, self.stage
        here = {name for name, value in arguments.items() if value is not None}
        if len(self.tokens) != self.call.rows or any(name in family.slices or "mask" in name for name in here):
            raise Apart
        tables = {name: arguments[name] for name in family.indexed if name in here}
        packed = self.call.select(arguments, self.groups[0].rows, leave=(stage.tokens, *tables))
        for name, value in tables.items():
            change = partial(map_tensors, partial(self.table, family.indexed[name]))
            packed[name] = self.call.again((self.groups, name, self.text, *self.place), value, change)
        packed[stage.tokens] = take(self.tokens, index(self.call, self.groups, *self.place).through)
        if stage.text is not None:  # [N, T, D] -> [B, branches * T, D]
            packed[stage.text] = torch.cat([arguments[stage.text][group.rows] for group in self.groups], dim=1)
        return packed

    def options(self, arguments: Arguments) -> list[Arguments]:
        """transformer_options of each branch, where another node has put attention of its own into them."""
        if arguments["transformer_options"].get(OVERRIDE) is None:
            return []
        cuts = [Cut.of(self.call, self.stage, self.route, group, arguments) for group in self.groups]
        given = {"transformer_options": arguments["transformer_options"]}
        return [cut.options(self.call.select(given, cut.group.rows)["transformer_options"]) for cut in cuts]

    def table(self, dims: Sequence[int], value: Tensor) -> Tensor:
        """A table with one row for all, or one for each, cut down to the kept tokens."""
        length, text, route = self.place
        along = [dim for dim in {dim % value.ndim for dim in dims} if value.shape[dim] > 1]
        if len(along) != 1 or len(value) not in (1, self.call.rows):
            raise Apart
        size = value.shape[along[0]]
        if size not in (length, length + self.text):
            raise Apart
        split = size != length
        kept = index(self.call, self.groups, size, text + self.text if split else text, route, split)
        chosen = kept.within if len(value) == 1 else kept.through
        return take(value.movedim(along[0], 1), chosen).movedim(1, along[0])

    def sequences(self) -> dict[int, list[list[Range]]]:
        """How each sequence that attention can see is divided among the branches: the block's own, and with the text of
        a stream of its own."""
        own = [self.call.layout(group, *self.place).kept.shape[1] for group in self.groups]
        found = {sum(own): [[part] for part in ranges(own)]}
        if self.text:
            texts, count = [self.text] * len(own), len(own)
            parts = ranges(own + texts if self.call.family.text_last(self.call.network) else texts + own)
            both = zip(parts[:count], parts[count:], strict=True)
            found[sum(own + texts)] = [[*pair] for pair in both]
        return found

    def back(self, kept: Tensor, last: bool) -> Tensor:
        """The tokens as they were given, [N, L, D], with those that ran in their places; only the rows of the bundle
        are of use."""
        tokens, here = self.tokens, self.call.layout(self.groups[0], *self.place)
        if last:
            entry = self.call.entry(self.route, self.stage)
            entered = entry.streams[0]
            there = self.call.layout(self.groups[0], entered.shape[1], entry.text, self.route)
            count = here.dropped + here.left
            droppable = entered[:, there.start : there.start + count]
            tokens = torch.cat([tokens[:, : here.start], droppable, tokens[:, here.start + count :]], dim=1)
        return put(tokens, index(self.call, self.groups, *self.place).through, kept)


def ranges(lengths: Sequence[int]) -> list[Range]:
    """Of parts that stand one behind the other."""
    return [*zip(accumulate(lengths[:-1], initial=0), lengths, strict=True)]


def _joined(parts: list[Tensor], dim: int) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim)
