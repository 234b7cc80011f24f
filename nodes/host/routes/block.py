"""A block of the host's network that runs on each branch's kept tokens while the network is called."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn

from ....sparse_model.method.sparsity import Sparsity
from ..plain import plain
from ..wire import foreign
from .cut import Cut
from .families import listed, placed
from .family import Family, Stage
from .labels import watched
from .packed import OVERRIDE, Apart, Packed
from .places import over_all_places
from .probe import inside_blocks
from .routing import Arguments, Call, Group, shuffle
from .rows import flat, map_tensors, pick, put_back

CURRENT: ContextVar[Call | None] = ContextVar("sparse_guidance_call", default=None)
"""The evaluation that is running in this thread. Not every family hands transformer_options down to its blocks."""


class RoutedBlock:
    """In place of a block's `forward`. `route` is the block's route, None for a block in front of the first one; `last`
    says that the route ends with it. `like` is the host's own block, whose arguments have names, `package` whose code
    that is."""

    def __init__(
        self,
        block: nn.Module,
        stage: Stage,
        route: int | None,
        last: bool,
        like: nn.Module | None = None,
        package: str = "comfy",
    ):
        self.block, self.stage, self.route, self.last, self.package = block, stage, route, last, package
        self.shadowed: Callable | None = None
        tokens = stage.form.argument(stage.tokens)
        self.names = stage.positional or _parameters(type(block if like is None else like), tokens)

    @property
    def hosts(self) -> bool:
        """Whether what runs here is the code of whoever made the network, compiled or not."""
        block = getattr(self.block, "_orig_mod", self.block)
        return self.shadowed is None and type(block).__module__.split(".")[0] == self.package

    @property
    def original(self) -> Callable:
        """What runs without us, whatever other nodes have made of it by now."""
        return type(self.block).forward.__get__(self.block) if self.shadowed is None else self.shadowed

    def packs(self, call: Call, options: Mapping[str, Any] | None) -> bool:
        """Whether branches may stand side by side here: what runs is the host's own code, whose attention can be told
        to keep them apart, with nothing of other nodes inside but another attention."""
        own = self.shadowed is None and type(self.block).__module__.startswith("comfy.")
        able = own and self.route not in call.apart
        return able and options is not None and not inside_blocks({**options, OVERRIDE: None})

    @torch.compiler.disable  # what differs between calls and branches would be compiled anew again and again
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        call, original = CURRENT.get(), self.original
        if call is None:
            return original(*args, **kwargs)
        positional, form = self.names[: len(args)], self.stage.form
        arguments = form.opened({**dict(zip(positional, args, strict=True)), **kwargs})
        call.meet(self.stage, arguments)

        def run(changed: Arguments) -> Any:
            given = form.closed(changed)
            output = original(*(given[name] for name in positional), **{name: given[name] for name in kwargs})
            return form.opened_output(output)

        return form.closed_output((self._shared if self.route is None else self._routed)(call, arguments, run))

    def _shared(self, call: Call, arguments: Arguments, run: Callable[[Arguments], Any]) -> Any:
        """The block's output, computed once for chunks of one input, unless another node may tell these apart in it."""
        options, given = arguments.get("transformer_options") or {}, call.given
        given.inside |= not self.hosts or any(map(foreign, inside_blocks({**options, OVERRIDE: None})))
        if call.distinct is None or not given.shared(call, arguments):
            return run(arguments)
        rows, back = call.distinct
        own, readers = call.select(arguments, rows), []
        if OVERRIDE in options and foreign(options[OVERRIDE]):  # a kernel, if it does not ask for labels
            own = {name: map_tensors(Tensor.clone, value) for name, value in own.items()}  # a block may write into them
            own["transformer_options"] = watched(own["transformer_options"], readers)
        output = run(own)
        given.inside |= bool(readers)
        return run(arguments) if readers else map_tensors(lambda value: value[back], output)

    def _routed(self, call: Call, arguments: Arguments, run: Callable[[Arguments], Any]) -> Any:
        """The block's output, each group of rows on its own kept tokens."""
        call.enter(self.route, self.stage, arguments)
        ran = self._side_by_side(call, arguments, run)
        if len(ran) == 1:
            return next(iter(ran.values()))
        parts = [ran[g] if g in ran else self._group(call, arguments, run, g) for g in call.groups]
        if self.stage.output is None:
            return torch.cat(parts)
        return tuple(None if values[0] is None else torch.cat(values) for values in zip(*parts, strict=True))

    def _side_by_side(self, call: Call, arguments: Arguments, run: Callable[[Arguments], Any]) -> dict[Group, Any]:
        """The block's output for groups that run once, together: for each of them, or one for all rows."""
        ran: dict[Group, Any] = {}
        if self.packs(call, arguments.get("transformer_options")):
            try:
                for groups in call.bundles(self.stage, arguments):
                    packed = Packed(call, self.stage, self.route, arguments[self.stage.tokens], groups)
                    ran |= zip(groups, packed.run(arguments, run, self.last), strict=False)
            except Apart:
                call.apart.add(self.route)
        return ran

    def _group(self, call: Call, arguments: Arguments, run: Callable[[Arguments], Any], group: Group) -> Any:
        """What the block returns for some rows, all of which keep equally many tokens."""
        if group.gamma == 0:
            return run(call.select(arguments, group.rows))
        cut = Cut.of(call, self.stage, self.route, group, arguments)
        if cut.layout.left:
            again = self._shuffled(call, arguments, run, group) if group is call.probed else None
            output = self._kept(cut, arguments, run)
            if again is not None:
                call.probe.check(*again(output))
        else:
            output = self._skipped(arguments, group)
        outputs = [output] if self.stage.output is None else list(output)
        for stream, (name, place) in enumerate(self.stage.streams):
            outputs[place] = self._back(cut, stream, arguments[name][group.rows], outputs[place])
        return outputs[0] if self.stage.output is None else tuple(outputs)

    def _kept(self, cut: Cut, arguments: Arguments, run: Callable[[Arguments], Any]) -> Any:
        """What the block returns for some rows' kept tokens."""
        with over_all_places(self.block, self.stage.by_place, cut.places):
            return run(cut.arguments(arguments))

    def _shuffled(
        self, call: Call, arguments: Arguments, run: Callable[[Arguments], Any], group: Group
    ) -> Callable[[Any], tuple[Tensor, ...]]:
        """Runs the block on the kept tokens of the first of some rows in another order. With its output on all of them
        in their order: the image tokens that were given and what came of them, [1, K, D] each, the latter twice."""
        first = Group(group.start, group.start + 1, group.gamma)
        cut = Cut.of(call, self.stage, self.route, first, arguments, shuffled=True)
        own = map_tensors(Tensor.clone, [*arguments.values()])  # some blocks write into what they are given
        again = self._kept(cut, dict(zip(arguments, own, strict=True)), run)
        image = slice(cut.layout.start, cut.layout.start + cut.layout.left)
        given = pick(flat(cut.given)[first.rows], cut.layout.kept)[:, image]
        order, place = shuffle(cut.layout.left, call.device), self.stage.output

        def compared(output: Any) -> tuple[Tensor, ...]:
            straight, other = (flat(found if place is None else found[place])[:1, image] for found in (output, again))
            return given, straight[:, order], other

        return compared

    def _skipped(self, arguments: Arguments, group: Group) -> Any:
        """What the block returns where the whole path is dropped: the other streams as they came."""
        stage = self.stage
        return None if stage.output is None else [arguments[stage.text or stage.twin or stage.sound][group.rows]] * 2

    def _back(self, cut: Cut, stream: int, given: Tensor, kept: Tensor | None) -> Tensor:
        """A stream as it was given, [rows, L, D] or [rows, T, H, W, D], with the kept tokens that ran in their places.

        At the end of a route the dropped tokens are those that entered it: what the host has added between blocks
        reached kept tokens only.
        """
        tokens = flat(given)
        if self.last:
            entry = cut.entry(stream)
            tokens = put_back(tokens, cut.layout.droppable, entry)
        if cut.layout.left:
            tokens = put_back(tokens, cut.layout.kept, flat(kept))
        return tokens.view_as(given)


def routed_blocks(
    model: nn.Module, replaced: Mapping[str, Any], family: Family, sparsity: Sparsity, before: Sequence[RoutedBlock]
) -> list[RoutedBlock]:
    """The blocks of a loaded model that a route concerns, as they will run: with whatever other nodes have `replaced`.

    Those of `before` that still fit stay the same objects, which a compiled network would otherwise take for new code.
    """
    network, known = plain(model, replaced, "diffusion_model"), {id(routed.block): routed for routed in before}
    found = []
    for path, stage, route, last in placed(network, family, sparsity):
        name = f"diffusion_model.{path}"
        block = dict(listed(plain(model, replaced, f"diffusion_model.{stage.path}")))[path.rpartition(".")[2]]
        package = type(network).__module__.split(".")[0]
        made = RoutedBlock(block, stage, route, last, plain(model, replaced, name), package)
        found.append(known.get(id(block), made))
    return found


@contextmanager
def installed(blocks: Sequence[RoutedBlock], call: Call | None) -> Iterator[None]:
    """The blocks run routed inside, and as they did before afterwards; names of parameters, and so LoRA keys, stay."""
    before = CURRENT.set(call)
    fresh = [routed for routed in blocks if routed.block.__dict__.get("forward") is not routed]
    for routed in fresh:
        routed.shadowed = routed.block.__dict__.get("forward")
        routed.block.__dict__["forward"] = routed
    try:
        yield
    finally:
        for routed in fresh:
            del routed.block.__dict__["forward"]
            if routed.shadowed is not None:
                routed.block.__dict__["forward"] = routed.shadowed
        CURRENT.reset(before)


def _parameters(kind: type[nn.Module], tokens: str) -> tuple[str, ...]:
    """The names of the positional parameters of a block's forward; a class that other nodes have put over the host's
    need not name them."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    for owner in kind.__mro__:
        parameters = inspect.signature(owner.forward).parameters.values() if "forward" in owner.__dict__ else ()
        names = tuple(p.name for p in parameters if p.kind in kinds)[1:]
        if tokens in names:
            return names
    raise ValueError(f"Token Route cannot tell which argument of {kind.__qualname__} holds its tokens ({tokens}).")
