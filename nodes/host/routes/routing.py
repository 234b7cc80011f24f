"""Token routes through the blocks of the host's own transformers.

The host's forward always sees all rows and all tokens, so whatever it does between its blocks (ControlNet residuals,
patches, skip connections) needs no knowledge of routes. A routed block takes each branch's kept tokens out of what it
is given, runs on them alone, and puts them back; a block before the first route runs once for chunks of one input.
"""

import inspect
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

from ....sparse_model.method.branches import Evaluation
from .family import Family, Stage
from .rows import flat, folded_rows_of, map_tensors, pick, put_back, rows_of, stretched

Arguments = dict[str, Any]


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


@dataclass(eq=False)
class Call:
    """One evaluation of a host's network by several branches; what its routed blocks share."""

    network: nn.Module
    family: Family
    evaluation: Evaluation
    rows: int
    grid: tuple[int, ...]
    inputs: dict[str, Any]
    device: torch.device
    text_length: int = 0
    entries: dict[Any, tuple[list[Tensor], int]] = field(default_factory=dict)  # route -> streams as they entered, text
    made: dict[Any, Any] = field(default_factory=dict)  # what every block would otherwise compute again

    @property
    def size(self) -> int:
        """Rows of one chunk."""
        return self.rows // len(self.evaluation.branches)

    def once(self, key: Any, make: Callable[[], Any]) -> Any:
        if key not in self.made:
            self.made[key] = make()
        return self.made[key]

    def groups(self) -> list[tuple[slice, float]]:
        """(rows, gamma) of neighbouring chunks of one gamma; single rows where a family wants them."""
        found, chunk = [], 0
        for gamma, group in groupby(self.evaluation.branches, key=lambda branch: branch.gamma):
            start, chunk = chunk * self.size, chunk + len(list(group))
            step = 1 if self.family.rowwise and gamma > 0 else chunk * self.size - start
            found += [(slice(row, row + step), gamma) for row in range(start, chunk * self.size, step)]
        return found

    def distinct(self) -> tuple[slice, Tensor] | None:
        """(rows of the distinct inputs, which of these each row is), or None where there is nothing to share.

        The host lays out each branch's conditions in one order, so that the distinct ones stand in front.
        """
        sources = self.evaluation.sources
        first = list(dict.fromkeys(sources.index(source) for source in sources))
        if len(first) == len(sources) or first != list(range(len(first))):
            return None
        within = torch.arange(self.size, device=self.device)
        back = torch.cat([within + first.index(sources.index(source)) * self.size for source in sources])
        return slice(0, len(first) * self.size), back

    def subset(self, rows: slice, gamma: float, count: int, route: int) -> Tensor:
        """The kept tokens of some rows out of `count` droppable ones: [rows, K]."""
        chunks = range(rows.start // self.size, -(-rows.stop // self.size))
        kept, branches = self.evaluation.subsets, self.evaluation.branches
        drawn = [
            self.once(
                ("subset", chunk, route),
                partial(kept.draw, branches[chunk].index, self.size, count, gamma, route, self.device),
            )
            for chunk in chunks
        ]
        first = chunks.start * self.size
        return torch.cat(drawn)[rows.start - first : rows.stop - first]

    def layout(self, rows: slice, gamma: float, length: int, text: int, route: int) -> Layout:
        """Which positions of a sequence, `text` of which are joint text tokens, some rows keep."""

        def make() -> Layout:
            start, count = self.family.span(self.network, self.grid, self.inputs, length - text)
            if not self.family.text_last(self.network):
                start = start + text
            subset = self.subset(rows, gamma, count, route)
            others = torch.arange(length - count, device=self.device).expand(len(subset), -1)
            others = torch.where(others < start, others, others + count)
            kept = torch.cat([others, subset + start], dim=1).sort(dim=1).values
            droppable = torch.arange(start, start + count, device=self.device).expand(len(subset), -1)
            left = subset.shape[1]
            return Layout(kept, droppable, start, count - left, left)

        return self.once(("layout", rows.start, length, text, route), make)

    def joint_text(self, stage: Stage, length: int) -> int:
        """How many text tokens stand in a stage's own sequence."""
        if not stage.joint:
            return 0
        return self.text_length or length - sum(self.family.span(self.network, self.grid, self.inputs, length))

    def select(self, arguments: Arguments, rows: slice, leave: tuple[str, ...] = ()) -> Arguments:
        """Arguments of a block for some rows of the batch, but for those named in `leave`."""
        chosen = dict(arguments)
        for name, value in arguments.items():
            if name in leave or name in self.family.common or 0 in self.family.indexed.get(name, ()):
                continue
            if name == "transformer_options":  # patches inside a block look their chunks up there
                chunks = slice(rows.start // self.size, -(-rows.stop // self.size))
                chosen[name] = {**value, **{label: value[label][chunks] for label in ("cond_or_uncond", "uuids")}}
            elif name in self.family.folded:
                chosen[name] = folded_rows_of(value, self.rows, rows)
            else:
                chosen[name] = map_tensors(partial(rows_of, total=self.rows, rows=rows), value)
        return chosen


CURRENT: ContextVar[Call | None] = ContextVar("sparse_guidance_call", default=None)
"""The evaluation that is running in this thread. Not every family hands transformer_options down to its blocks."""


class RoutedBlock:
    """In place of a block's `forward`. `route` is the block's route, None for a block in front of the first one."""

    def __init__(self, original: Callable, stage: Stage, route: int | None, last: bool):
        self.original, self.stage, self.route, self.last = original, stage, route, last
        kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        named = [p.name for p in inspect.signature(original).parameters.values() if p.kind in kinds]
        self.names = stage.positional or tuple(named)

    @torch.compiler.disable  # what differs between calls and branches would be compiled anew again and again
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        call = CURRENT.get()
        if call is None:
            return self.original(*args, **kwargs)
        positional = self.names[: len(args)]
        arguments = {**dict(zip(positional, args, strict=True)), **kwargs}

        def run(changed: Arguments) -> Any:
            return self.original(*(changed[name] for name in positional), **{name: changed[name] for name in kwargs})

        if self.stage.text is not None:
            call.text_length = arguments[self.stage.text].shape[1]
        return self._shared(call, arguments, run) if self.route is None else self._routed(call, arguments, run)

    def _shared(self, call: Call, arguments: Arguments, run: Callable[[Arguments], Any]) -> Any:
        distinct = call.once("distinct", call.distinct)
        if distinct is None:
            return run(arguments)
        rows, back = distinct
        return map_tensors(lambda value: value[back], run(call.select(arguments, rows)))

    def _routed(self, call: Call, arguments: Arguments, run: Callable[[Arguments], Any]) -> Any:
        tokens = flat(arguments[self.stage.tokens])  # [N, L, D]
        text = call.joint_text(self.stage, tokens.shape[1])
        entering = [flat(arguments[name]) for name, _ in self.stage.streams]
        call.entries.setdefault((self.route, self.stage.anew), (entering, text))
        parts = [
            self._group(call, arguments, run, rows, gamma, text) for rows, gamma in call.once("groups", call.groups)
        ]
        if self.stage.output is None:
            return torch.cat(parts)
        return tuple(None if values[0] is None else torch.cat(values) for values in zip(*parts, strict=True))

    def _group(
        self, call: Call, arguments: Arguments, run: Callable[[Arguments], Any], rows: slice, gamma: float, text: int
    ) -> Any:
        """What the block returns for some rows, all of which keep equally many tokens."""
        if gamma == 0:
            return run(call.select(arguments, rows))
        length = flat(arguments[self.stage.tokens]).shape[1]
        layout = call.layout(rows, gamma, length, text, self.route)
        if layout.left:
            output = run(self._kept(call, arguments, rows, gamma, layout))
        else:  # the whole path is dropped
            output = None if self.stage.output is None else [arguments[self.stage.text or self.stage.twin][rows]] * 2
        outputs = [output] if self.stage.output is None else list(output)
        for stream, (name, place) in enumerate(self.stage.streams):
            given = arguments[name][rows]
            tokens = flat(given)  # [rows, L, D]
            if self.last:  # whatever the host has added between blocks reached kept tokens only
                entered, joint = call.entries[self.route, self.stage.anew]
                entry = call.layout(rows, gamma, entered[stream].shape[1], joint, self.route)
                tokens = put_back(tokens, layout.droppable, pick(entered[stream][rows], entry.droppable))
            if layout.left:
                tokens = put_back(tokens, layout.kept, flat(outputs[place]))
            outputs[place] = tokens.view_as(given)
        return outputs[0] if self.stage.output is None else tuple(outputs)

    def _kept(self, call: Call, arguments: Arguments, rows: slice, gamma: float, layout: Layout) -> Arguments:
        """Arguments for some rows, on their kept tokens alone."""
        family, given = call.family, arguments[self.stage.tokens]
        length = flat(given).shape[1]
        for name, meaning in family.refused.items():
            if arguments.get(name) is not None:
                raise ValueError(f"Token Route cannot drop tokens of {family.name} with {meaning}; leave these out.")
        changed = call.select(arguments, rows, leave=(*family.indexed, self.stage.tokens))
        tokens = pick(flat(given)[rows], layout.kept)  # [rows, L, D] -> [rows, K, D]
        varying = [
            name
            for name, ndim in family.stretched.items()
            if changed.get(name) is not None and changed[name].ndim == ndim and changed[name].shape[1] > 1
        ]
        for name in varying:
            changed[name] = pick(stretched(changed[name], length), layout.kept)
        if given.ndim > 3:  # [rows, time, height, width, D], where modulation may vary over time
            tokens = tokens.unflatten(1, (-1, 1, 1) if varying else (1, -1, 1))
        changed[self.stage.tokens] = tokens
        if self.stage.twin is not None:
            changed[self.stage.twin] = pick(changed[self.stage.twin], layout.kept)
        for name in family.slices:
            if changed.get(name) is not None:
                changed[name] = layout.moved(changed[name])
        options = changed.get("transformer_options", {})
        if "img_slice" in options:
            changed["transformer_options"] = {**options, "img_slice": [*map(layout.moved, options["img_slice"])]}

        def indexed(value: Tensor, name: str) -> Tensor:
            if value.ndim == given.ndim > 3:  # a value for every token, laid out as they are
                return pick(flat(value)[rows], layout.kept).view_as(tokens)
            if 0 in family.indexed[name] and value.shape[0] == length:  # no rows: there is one row per call
                return value[layout.kept[0]]
            value = rows_of(value, call.rows, rows)
            for dim in (dim % value.ndim for dim in family.indexed[name]):
                size = value.shape[dim]
                if dim == 0 or size == 1:
                    continue
                joint = 0 if size == length or self.stage.text is None else call.text_length
                if size != length + joint:
                    raise ValueError(
                        f"Token Route cannot tell how {name} of shape {tuple(value.shape)} belongs to {length} tokens."
                    )
                kept = call.layout(rows, gamma, size, joint, self.route).kept if joint else layout.kept
                value = pick(value, kept, dim)
            return value

        for name in family.indexed:
            value = changed.get(name)
            if value is not None:
                # One table is handed to every block: it is gathered once, and kept alive as long as its id is a key.
                made = call.once(
                    ("indexed", id(value), rows.start, length, self.route),
                    lambda value=value, name=name: (map_tensors(partial(indexed, name=name), value), value),
                )
                changed[name] = made[0]
        return changed
