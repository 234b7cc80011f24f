"""A token route on any MODEL of the host: recorded on a clone, carried out whenever the clone's network is called."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import CallbacksMP, WrappersMP
from torch import Tensor, nn

from ....sparse_model.method.branches import Evaluation
from ....sparse_model.method.sparsity import Sparsity
from ..plain import plain
from ..wire import evaluation_of, foreign, of_sample, picture_shape, places_of, touched
from .block import RoutedBlock, installed, routed_blocks
from .cut import name_of
from .families import numbered_blocks, placed
from .family import Family
from .inputs import Inputs
from .probe import Probe, between_blocks, inside_blocks, objects_inside
from .routing import Call
from .rows import rows_of
from .speech import one_row_at_a_time

KEY = "token_route"
"""The name of our wrapper, callback and attachment on a model of the host."""


def routed(model: ModelPatcher, family: Family, sparsity: Sparsity) -> ModelPatcher:
    """A clone that drops tokens where `sparsity` says, in place of any earlier route; ValueError if it cannot."""
    placed(plain(model.model, model.object_patches_backup, "diffusion_model"), family, sparsity)
    clone, route = model.clone(), RouteTokens(family, sparsity)
    clone.set_attachments(KEY, sparsity)
    clone.remove_wrappers_with_key(WrappersMP.APPLY_MODEL, KEY)
    clone.add_wrapper_with_key(WrappersMP.APPLY_MODEL, KEY, route)
    clone.remove_callbacks_with_key(CallbacksMP.ON_PRE_RUN, KEY)
    clone.add_callback_with_key(CallbacksMP.ON_PRE_RUN, KEY, route.begin)
    return clone


def row_by_row(given: tuple, more: dict[str, Any]) -> Iterator[tuple[tuple, dict[str, Any]]]:
    """The arguments of a call of a model, positional and named, for each row of its batch: one chunk of one sample."""
    total, options = len(given[0]), given[-1]
    size = total // len(options.get("cond_or_uncond", [0]))
    for i in range(total):
        chunk, sample = divmod(i, size)
        own = {name: options[name][chunk : chunk + 1] for name in ("cond_or_uncond", "uuids") if name in options}
        own |= of_sample(options, sample)

        def row(value: Any, i: int = i) -> Any:
            return rows_of(value, total, slice(i, i + 1)) if isinstance(value, Tensor) else value

        yield (*map(row, given[:-1]), {**options, **own}), {name: row(value) for name, value in more.items()}


@dataclass(frozen=True, eq=False)
class RouteTokens:
    """APPLY_MODEL wrapper: the network runs with routed blocks where this evaluation drops tokens.

    Nothing is patched but for the time of a call, so it does not matter which other nodes patch the same blocks, before
    or behind this one, and nothing is left on them afterwards. Every device has a model, and so blocks, of its own.
    """

    family: Family
    sparsity: Sparsity
    _blocks: WeakKeyDictionary[nn.Module, list[RoutedBlock]] = field(default_factory=WeakKeyDictionary, init=False)
    _replaced: WeakKeyDictionary[nn.Module, dict[bool, list[str]]] = field(
        default_factory=WeakKeyDictionary, init=False
    )
    """Models, with the names of what other nodes have replaced inside blocks: routed ones (True), others (False)."""
    _unprobed: WeakSet[nn.Module] = field(default_factory=WeakSet, init=False)
    """Models at the beginning of a run."""
    _unheard: WeakSet[nn.Module] = field(default_factory=WeakSet, init=False)
    """Models whose attention turned out in this run not to be the host's."""
    _modulated: WeakKeyDictionary[nn.Module, dict[tuple, bool]] = field(default_factory=WeakKeyDictionary, init=False)
    """Models, with which inputs they modulate alike in this run."""

    def begin(self, patcher: ModelPatcher) -> None:
        """A run begins, with every patch of the graph in place, and no node has replaced anything for a call yet."""
        self._find(patcher.model, patcher.object_patches_backup)
        network = plain(patcher.model, patcher.object_patches_backup, "diffusion_model")
        blocks = placed(network, self.family, self.sparsity)
        self._replaced[patcher.model] = {
            routed: objects_inside(patcher.object_patches, [p for p, _, r, _ in blocks if (r is not None) == routed])
            for routed in (True, False)
        }
        self._unprobed.add(patcher.model)
        self._unheard.discard(patcher.model)
        self._modulated[patcher.model] = {}

    def __call__(
        self,
        executor: Any,
        x: Tensor,
        t: Tensor,
        c_concat: Tensor | None = None,
        c_crossattn: Tensor | None = None,
        control: Any = None,
        transformer_options: dict[str, Any] = {},  # noqa: B006, the host's own signature
        **kwargs: Any,
    ) -> Tensor:
        if self.family.one_row and len(x) > 1:
            given = (x, t, c_concat, c_crossattn, control, transformer_options)
            return torch.cat([self(executor, *row, **more) for row, more in row_by_row(given, kwargs)])
        model, now = executor.class_obj, evaluation_of(transformer_options, x, t)
        blocks, call = [], None
        if now.sparse:
            blocks = self._blocks[model] if model in self._blocks else self._find(model, {})
            network, inputs = self._network(model), {**kwargs, "c_concat": c_concat}
            shape = picture_shape(x, kwargs.get("latent_shapes"))
            grid = self.family.grid(network, shape[2:])
            start, count = self.family.span(network, grid, inputs, math.prod(grid))
            part = slice(start, start + count) if count < math.prod(grid) else slice(None)  # the rest is never left out
            depth, sides = len(numbered_blocks(network, self.family)), self.family.sides(network, len(shape) - 2)
            now = now.placed(self.sparsity, depth, shape[2:], sides, part)
            labels = places_of(transformer_options, x, t)
            replaced = self._replaced.get(model, {True: [], False: []})
            probe = self._probe(model, now, [*replaced[True], *map(name_of, inside_blocks(transformer_options))])
            alone = not replaced[True] and model not in self._unheard
            if "patches" in transformer_options:
                patches = one_row_at_a_time(transformer_options["patches"])
                transformer_options = {**transformer_options, "patches": patches}
            doubted = touched(transformer_options)
            within = any(map(foreign, inside_blocks(transformer_options)))  # a ControlNet has it inside, too
            controlled = control is not None and (doubted or within)
            patched = controlled or any(map(foreign, between_blocks(transformer_options)))
            known = self._modulated.setdefault(model, {})
            given = Inputs(doubted, patched, bool(replaced[False]), known)
            call = Call(network, self.family, now, len(x), grid, inputs, x.device, labels, probe, alone, given)
        with installed(blocks, call):
            output = executor(x, t, c_concat, c_crossattn, control, transformer_options, **kwargs)
        if call is not None and call.unheard:
            self._unheard.add(model)
        return output

    def _find(self, model: nn.Module, replaced: Mapping[str, Any]) -> list[RoutedBlock]:
        before = self._blocks.get(model, ())
        self._blocks[model] = routed_blocks(model, replaced, self.family, self.sparsity, before)
        return self._blocks[model]

    def _probe(self, model: nn.Module, now: Evaluation, inside: list[str]) -> Probe | None:
        """Once in a run, where other nodes have put something inside routed blocks and these run on kept tokens."""
        if model not in self._unprobed or not any(0 < branch.gamma < 1 for branch in now.branches):
            return None
        self._unprobed.remove(model)
        return Probe(tuple(dict.fromkeys(inside))) if inside else None

    @staticmethod
    def _network(model: nn.Module) -> nn.Module:
        patcher = getattr(model, "current_patcher", None)
        return plain(model, {} if patcher is None else patcher.object_patches_backup, "diffusion_model")
