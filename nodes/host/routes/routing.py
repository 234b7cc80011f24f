"""One evaluation of a host's network by several branches, and what its routed blocks share.

The host's forward always sees all rows and all tokens, so whatever it does between its blocks (ControlNet residuals,
patches, skip connections) needs no knowledge of routes. A routed block takes each branch's kept tokens out of what it
is given, runs on them alone, and puts them back; a block before the first route runs once for chunks of one input.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property, partial, wraps
from itertools import groupby
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ....sparse_model.method.branches import Evaluation
from ..wire import check_rows
from .family import Family, Stage
from .inputs import Inputs
from .labels import LABELS
from .layout import Layout
from .probe import Probe
from .rows import flat, folded_rows_of, map_tensors, rows_of, stacked_rows_of

Arguments = dict[str, Any]


@dataclass(frozen=True)
class Group:
    """Neighbouring rows of the batch that keep equally many tokens, and so run together."""

    start: int
    stop: int
    gamma: float

    @property
    def rows(self) -> slice:
        return slice(self.start, self.stop)


def rates(evaluation: Evaluation) -> list[tuple[float, range]]:
    """The sparsity rates of an evaluation, each with its chunks of the batch, which are neighbours."""
    found, chunk = [], 0
    for gamma, branches in groupby(evaluation.branches, key=lambda branch: branch.gamma):
        start, chunk = chunk, chunk + len(list(branches))
        found.append((gamma, range(start, chunk)))
    return found


Some = TypeVar("Some")


def bundled(groups: Iterable[Some], fit: Callable[[Some, Some], bool]) -> list[tuple[Some, ...]]:
    """Which of some groups run side by side: each with the first that it fits; those that fit none are left out."""
    found: list[list[Some]] = []
    for group in groups:
        for own in found:
            if fit(own[0], group):
                own.append(group)
                break
        else:
            found.append([group])
    return [tuple(own) for own in found if len(own) > 1]


@dataclass(frozen=True)
class Entry:
    """What entered a route: the streams of image tokens, [N, L, D] each, with `text` joint text tokens."""

    streams: tuple[Tensor, ...]
    text: int


def shuffle(count: int, device: torch.device) -> Tensor:
    """One and the same order of `count` tokens every time."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(count)).to(device)


def remembered(method: Callable) -> Callable:
    """A method of a Call that is computed once for each of its arguments: all blocks ask for the same."""

    @wraps(method)
    def once(self: "Call", *arguments: Any) -> Any:
        results = self._results.setdefault(method, {})
        if arguments not in results:
            results[arguments] = method(self, *arguments)
        return results[arguments]

    return once


@dataclass(eq=False)
class Call:
    """One evaluation of a host's `network`: `rows` rows of `grid` patches, with the further `inputs` of the call.

    `labels` are the places of its chunks in the host's lists of labels; another node may have made more chunks of them.
    `probe` asks of every routed block whether the order of tokens matters; `alone` says that all that blocks are made
    of is the host's; `given` tells which chunks are given the same. `apart` are routes in which branches could not
    stand side by side, `unheard` says that a block had run before that was known.
    """

    network: nn.Module
    family: Family
    evaluation: Evaluation
    rows: int
    grid: tuple[int, ...]
    inputs: dict[str, Any]
    device: torch.device
    labels: tuple[int, ...] | None = None
    probe: Probe | None = None
    alone: bool = True
    given: Inputs = field(default_factory=Inputs)
    apart: set[int] = field(default_factory=set, init=False)
    unheard: bool = field(default=False, init=False)
    _results: dict[Callable, dict[tuple, Any]] = field(default_factory=dict, init=False)
    _text: int | None = field(default=None, init=False)
    _entries: dict[tuple[int, bool], Entry] = field(default_factory=dict, init=False)
    _latest: dict[tuple, tuple[Any, Any]] = field(default_factory=dict, init=False)
    _bundles: dict[str, list[tuple[Group, ...]]] = field(default_factory=dict, init=False)

    @property
    def size(self) -> int:
        """Rows of one chunk."""
        return self.rows // len(self.evaluation.branches)

    @cached_property
    def groups(self) -> list[Group]:
        """Neighbouring chunks of one sparsity rate; single rows where a family wants them."""
        found = []
        for gamma, chunks in rates(self.evaluation):
            rows = range(chunks.start * self.size, chunks.stop * self.size)
            step = 1 if self.family.rowwise and gamma > 0 else len(rows)
            found += [Group(row, row + step, gamma) for row in rows[::step]]
        return found

    def chunks(self, group: Group) -> range:
        return range(group.start // self.size, -(-group.stop // self.size))

    @cached_property
    def probed(self) -> Group | None:
        """The group of rows that a probe looks at: the sparsest one that runs at all."""
        running = [group for group in self.groups if 0 < group.gamma < 1]
        return max(running, key=lambda group: group.gamma, default=None) if self.probe else None

    def bundles(self, stage: Stage, arguments: Arguments) -> list[tuple[Group, ...]]:
        """Groups that may run side by side in one sequence of a stage: those that are modulated alike, none of them
        dropped altogether."""
        if not (self.family.packed and self.alone and self.probe is None):
            return []
        if stage.path not in self._bundles:
            alike = partial(self.given.modulate_alike, self, stage, arguments)
            self._bundles[stage.path] = bundled((group for group in self.groups if group.gamma < 1), alike)
        return self._bundles[stage.path]

    @cached_property
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

    def meet(self, stage: Stage, arguments: Arguments) -> None:
        """Takes note of the text tokens where they are a stream of their own: joint stages come behind it. ValueError
        unless the block is given all rows."""
        check_rows(len(arguments[stage.tokens]), self.rows, len(self.evaluation.branches))
        if stage.text is not None:
            self._text = arguments[stage.text].shape[1]

    def text(self, stage: Stage, length: int) -> int:
        """How many of a sequence's tokens are joint text tokens."""
        if not stage.joint:
            return 0
        return self._text or length - sum(self.span(length))

    @property
    def text_stream(self) -> int:
        """How many text tokens there are in a stream of their own."""
        return self._text or 0

    def enter(self, route: int, stage: Stage, arguments: Arguments) -> None:
        """Takes note of the tokens that a route's first block is given; `anew` has other ones in the same route."""
        if (route, stage.anew) not in self._entries:
            streams = tuple(flat(arguments[name]) for name, _ in stage.streams)
            self._entries[route, stage.anew] = Entry(streams, self.text(stage, streams[0].shape[1]))

    def entry(self, route: int, stage: Stage) -> Entry:
        return self._entries[route, stage.anew]

    @remembered
    def span(self, length: int) -> tuple[int, int]:
        """Start and count of the droppable tokens in a sequence without joint text."""
        return self.family.span(self.network, self.grid, self.inputs, length)

    @remembered
    def drawn(self, chunk: int, count: int, route: int) -> Tensor:
        """The tokens that one chunk keeps out of `count` droppable ones: [size, K]."""
        branch = self.evaluation.branches[chunk]
        return self.evaluation.subsets.draw(branch.index, self.size, count, branch.gamma, route, self.device)

    def subset(self, group: Group, count: int, route: int) -> Tensor:
        """The tokens that some rows keep out of `count` droppable ones: [rows, K]."""
        chunks = self.chunks(group)
        first = chunks.start * self.size
        drawn = torch.cat([self.drawn(chunk, count, route) for chunk in chunks])
        return drawn[group.start - first : group.stop - first]

    @remembered
    def layout(self, group: Group, length: int, text: int, route: int, shuffled: bool = False) -> Layout:
        """Which positions of a sequence, `text` of which are joint text tokens, some rows keep, in their order, or with
        the image's `shuffled`."""
        start, count = self.span(length - text)
        if not self.family.text_last(self.network):
            start = start + text
        subset = self.subset(group, count, route)
        others = torch.arange(length - count, device=self.device).expand(len(subset), -1)
        others = torch.where(others < start, others, others + count)
        kept = torch.cat([others, subset + start], dim=1).sort(dim=1).values
        droppable = torch.arange(start, start + count, device=self.device).expand(len(subset), -1)
        left = subset.shape[1]
        if shuffled:
            kept[:, start : start + left] = kept[:, start : start + left][:, shuffle(left, self.device)]
        return Layout(kept, droppable, start, count - left, left)

    def select(self, arguments: Arguments, rows: slice, leave: tuple[str, ...] = ()) -> Arguments:
        """Arguments of a block for some rows of the batch, but for those named in `leave`."""
        return {name: value if name in leave else self._rows(name, value, rows) for name, value in arguments.items()}

    def _rows(self, name: str, value: Any, rows: slice) -> Any:
        family = self.family
        if name in family.common or 0 in family.indexed.get(name, ()):
            return value
        if name == "transformer_options" and value is not None:
            return self._options(value, rows)
        if name in family.folded:
            return folded_rows_of(value, self.rows, rows)
        own = stacked_rows_of if name in family.stacked else rows_of
        return map_tensors(partial(own, total=self.rows, rows=rows), value)

    def _options(self, options: dict[str, Any], rows: slice) -> dict[str, Any]:
        """For patches inside a block, which look up there what their rows are and what belongs to them."""
        chunks = range(rows.start // self.size, -(-rows.stop // self.size))
        places = [chunk if self.labels is None else self.labels[chunk] for chunk in chunks]
        chosen = {**options, **{name: [options[name][i] for i in places] for name in LABELS}}
        if "model_patch_data" in options:
            own = partial(map_tensors, partial(rows_of, total=self.rows, rows=rows))
            chosen["model_patch_data"] = {patch: own(data) for patch, data in options["model_patch_data"].items()}
        return chosen

    def again(self, key: tuple, value: Any, change: Callable[[Any], Any]) -> Any:
        """change(value), or what that was for the block before: one table is handed to every block."""
        latest = self._latest.get(key)
        if latest is None or latest[0] is not value:
            self._latest[key] = latest = value, change(value)
        return latest[1]
