"""What nodes ask of a MODEL with a network of this pack (`adapters.Adapter`)."""

from dataclasses import replace

from comfy.model_patcher import ModelPatcher

from ....sparse_model.cost import Count, counter
from ....sparse_model.method.sparsity import Sparsity, trainers_route
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
        return self.spec.sparsity if self.spec.sparsity.routes else Sparsity((trainers_route(self.depth),))

    def tokens(self, shape: tuple[int, ...]) -> int:
        return self.spec.config.tokens(*shape[-2:])

    def text_tokens(self, positive: list | None) -> int:
        text = self.spec.text
        if positive is None:
            return 256 if text is None else text.length
        embeddings, options = positive[0]
        if text is None:
            return embeddings.shape[1]
        return fitted_text(text, embeddings, options.get("attention_mask")).mask.shape[1]

    def counter(self, shape: tuple[int, ...], text: int) -> Count:
        spec = replace(self.spec, sparsity=self.sparsity)
        if spec.text is not None:
            spec = replace(spec, text=replace(spec.text, length=text))
        patch = spec.config.patch_size
        return counter(spec, True, tuple(max(side // patch, 1) * patch for side in shape[-2:]))

    def routed(self, sparsity: Sparsity) -> ModelPatcher:
        list(sparsity.stretches(self.depth))
        clone = self.model.clone()
        clone.model_options["transformer_options"][ROUTE] = sparsity
        return clone
