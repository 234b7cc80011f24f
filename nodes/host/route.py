"""A token route on any MODEL: recorded on a clone, and carried out by the clone's own blocks."""

import math
from dataclasses import dataclass
from typing import Any

import comfy.patcher_extension
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ...sparse_model.sparsity import Sparsity
from .families import family_of, numbered_blocks, placed
from .family import Family, trained
from .model import spec_of
from .network import evaluation_of
from .routing import CURRENT, Call, RoutedBlock

KEY = "token_route"
"""The name of our wrapper, callbacks and attachment on a model of the host."""

OWN = "diffusion_model.sparsity"
"""Where a network of this pack keeps its route."""


def sparsity_of(model: ModelPatcher) -> Sparsity:
    """Where a MODEL is token-sparse: as its checkpoint or a Token Route says; falsy if it is dense."""
    if spec_of(model) is not None:
        return model.get_model_object(OWN)
    return model.get_attachment(KEY) or Sparsity()


def depth_of(model: ModelPatcher) -> int:
    """How many layers a route of a MODEL can count."""
    spec = spec_of(model)
    if spec is not None:
        return spec.config.depth
    network = model.model.diffusion_model
    return len(numbered_blocks(network, family_of(network)))


def tokens_of(model: ModelPatcher, shape: tuple[int, ...]) -> int:
    """Image tokens of a latent [B, C, ...]."""
    spec = spec_of(model)
    if spec is not None:
        return spec.config.tokens(*shape[-2:])
    network = model.model.diffusion_model
    return math.prod(family_of(network).grid(network, shape[2:]))


def family_route(model: ModelPatcher) -> Sparsity:
    """What to route where nobody says otherwise: the checkpoint's own route, else the default of the family."""
    spec = spec_of(model)
    if spec is not None:
        return spec.sparsity if spec.sparsity.routes else Sparsity((trained(spec.config.depth),))
    return Sparsity((family_of(model.model.diffusion_model).route(depth_of(model)),))


def described(model: ModelPatcher, sparsity: Sparsity, shape: tuple[int, ...] | None = None) -> str:
    """Some lines for people: family, routed blocks, tokens of a latent [B, C, ...]; ValueError if a route does not fit.

    `model` is the one that gets the route.
    """
    spec, depth = spec_of(model), depth_of(model)
    if spec is not None:
        name, paths = spec.architecture, [f"layer {i}" for i in range(depth)]
    else:
        network = model.model.diffusion_model
        family = family_of(network)
        name, paths = family.name, [path.replace(".", " ") for path, *_ in numbered_blocks(network, family)]
    stretches = [layers for layers, route in sparsity.stretches(depth) if route is not None]
    lines = [f"{name}, {depth} blocks."]
    for layers, route in zip(stretches, sorted(sparsity.routes, key=lambda r: r.layers(depth).start), strict=True):
        lines.append(
            f"Routed: blocks {layers.start} to {layers.stop - 1} ({paths[layers.start]} to {paths[layers.stop - 1]}), "
            f"trained at ratio {route.ratio:g}."
        )
    if shape is not None:
        lines.append(
            f"{tokens_of(model, shape)} image tokens at this size; text tokens and reference images are never dropped."
        )
    if sparsity_of(model):
        came = "route" if sparsity_of(model).routes else "mask"
        lines.append(f"This replaces the {came} that the model came with.")
    return "\n".join(lines)


def routed(model: ModelPatcher, sparsity: Sparsity) -> ModelPatcher:
    """A clone that drops tokens where `sparsity` says, in place of any earlier route; ValueError if it cannot."""
    spec = spec_of(model)
    if not sparsity.routes:
        raise ValueError("There is no route in this: give at least one start and end layer.")
    clone = model.clone()
    if spec is not None:
        list(sparsity.stretches(spec.config.depth))
        clone.add_object_patch(OWN, sparsity)
        return clone
    family = family_of(model.model.diffusion_model)
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
