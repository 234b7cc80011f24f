"""What nodes ask of a MODEL with a network of this pack (`adapters.Adapter`)."""

from collections.abc import Callable
from dataclasses import replace

from comfy.model_patcher import ModelPatcher

from ....sparse_model.cost import Count, counter
from ....sparse_model.method.sparsity import Route, Sparsity, short_route, trainers_route
from ....sparse_model.method.token_mask import TokenMask
from ....sparse_model.method.tokens import Staying
from .model import ROUTE, fitted_text, route_of, spec_of


class OwnModel:
    def __init__(self, model: ModelPatcher):
        self.model, self.spec = model, spec_of(model)
        self.name, self.depth = self.spec.architecture, self.spec.config.depth

    @property
    def sparsity(self) -> Sparsity:
        return route_of(self.model.model_options.get("transformer_options", {}), self.spec)

    @property
    def layer_names(self) -> list[str]:
        return [f"layer {number}" for number in range(self.depth)]

    @property
    def default_route(self) -> Sparsity:
        return self._or(trainers_route)

    trainers_route = default_route

    @property
    def short_route(self) -> Sparsity:
        return self._or(short_route)

    def _or(self, route: Callable[[int], Route]) -> Sparsity:
        """The route of the checkpoint; where it has none, another one."""
        return self.spec.sparsity if self.spec.sparsity.routes else Sparsity((route(self.depth),))

    def tokens(self, shape: tuple[int, ...]) -> int:
        return self.spec.config.tokens(*shape[-2:])

    def text_tokens(self, positive: list | None) -> int:
        text = self.spec.text
        if text is None:  # labels
            return 0
        if positive is None:
            return text.length
        embeddings, options = positive[0]
        return fitted_text(text, embeddings, options.get("attention_mask")).embeddings.shape[1]

    def staying(self, mask: TokenMask, shape: tuple[int, ...]) -> Staying:
        return mask.over(shape[2:], (self.spec.config.patch_size,) * 2)

    def counter(self, shape: tuple[int, ...], text: int, stay: int = 0) -> Count:
        spec = replace(self.spec, sparsity=self.sparsity)
        if spec.text is not None:
            spec = replace(spec, text=replace(spec.text, length=text))
        patch = spec.config.patch_size
        return counter(spec, True, tuple(max(side // patch, 1) * patch for side in shape[-2:]), stay)

    def routed(self, sparsity: Sparsity) -> ModelPatcher:
        list(sparsity.stretches(self.depth))
        clone = self.model.clone()
        clone.model_options["transformer_options"][ROUTE] = sparsity
        return clone
