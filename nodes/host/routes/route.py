"""A token route on any MODEL: recorded on a clone, and carried out by the clone's own blocks."""

import math
from dataclasses import dataclass
from typing import Any

import comfy.patcher_extension
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ....sparse_model.method.sparsity import Sparsity
from ..wire import evaluation_of
from .families import placed
from .family import Family
from .routing import CURRENT, Call, RoutedBlock

KEY = "token_route"
"""The name of our wrapper, callbacks and attachment on a model of the host."""


def routed(model: ModelPatcher, family: Family, sparsity: Sparsity) -> ModelPatcher:
    """A clone that drops tokens where `sparsity` says, in place of any earlier route; ValueError if it cannot."""
    clone = model.clone()
    install(clone, family, sparsity)
    clone.set_attachments(KEY, sparsity)
    clone.remove_wrappers_with_key(WrappersMP.APPLY_MODEL, KEY)
    clone.add_wrapper_with_key(WrappersMP.APPLY_MODEL, KEY, RouteTokens(family, sparsity))
    # a second device has blocks of its own
    for event in ("ON_DEEPCLONE_MULTIGPU", "ON_MATCH_MULTIGPU_CLONES"):
        if hasattr(comfy.patcher_extension.CallbacksMP, event):
            clone.remove_callbacks_with_key(getattr(comfy.patcher_extension.CallbacksMP, event), KEY)
            clone.add_callback_with_key(
                getattr(comfy.patcher_extension.CallbacksMP, event),
                KEY,
                lambda _, other: install(other, family, sparsity),
            )
    return clone


def install(clone: ModelPatcher, family: Family, sparsity: Sparsity) -> None:
    """Puts routed blocks over the `forward` of a clone's blocks: names of parameters, and so LoRA keys, stay."""
    for name in [name for name, patch in clone.object_patches.items() if isinstance(patch, RoutedBlock)]:
        del clone.object_patches[name]
    for path, stage, route, last in placed(clone.model.diffusion_model, family, sparsity):
        name = f"diffusion_model.{path}.forward"
        original = clone.get_model_object(name)
        while isinstance(original, RoutedBlock):  # of another clone that is loaded now
            original = original.original
        clone.add_object_patch(name, RoutedBlock(original, stage, route, last))


@dataclass(frozen=True)
class RouteTokens:
    """APPLY_MODEL wrapper: tells the routed blocks which branches this evaluation answers."""

    family: Family
    sparsity: Sparsity

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
        now = evaluation_of(transformer_options)
        if not now.sparse:
            return executor(x, t, c_concat, c_crossattn, control, transformer_options, **kwargs)
        network = executor.class_obj.diffusion_model
        self._check(network)
        inputs, grid = {**kwargs, "c_concat": c_concat}, self.family.grid(network, x.shape[2:])
        start, count = self.family.span(network, grid, inputs, math.prod(grid))
        part = slice(start, start + count) if count < math.prod(grid) else slice(None)  # the rest is never left out
        now = now.placed(self.sparsity, x.shape[2:], self.family.sides(network, x.ndim - 2), part)
        call = Call(network, self.family, now, len(x), grid, inputs, x.device)
        before = CURRENT.set(call)
        try:
            return executor(x, t, c_concat, c_crossattn, control, transformer_options, **kwargs)
        finally:
            CURRENT.reset(before)

    def _check(self, network: Any) -> None:
        """ValueError if somebody has replaced a routed block or its forward after us."""
        network = getattr(network, "_orig_mod", network)
        for path, _, route, _ in placed(network, self.family, self.sparsity):
            stage, number = path.split(".")
            block = getattr(network, stage)[int(number)]
            forward = getattr(block, "_orig_mod", block).forward
            if route is not None and not isinstance(forward, RoutedBlock):
                other = getattr(forward, "__func__", forward)
                name = getattr(other, "__qualname__", type(other).__name__)
                raise ValueError(
                    f"Another node has replaced {path}, which the token route runs through, by "
                    f"{getattr(other, '__module__', '?')}.{name}; put Token Route behind that node, or route other "
                    "blocks."
                )
