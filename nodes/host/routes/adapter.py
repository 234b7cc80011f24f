"""What nodes ask of a MODEL with a network of the host (`adapters.Adapter`)."""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property, partial

from comfy.model_patcher import ModelPatcher
from torch import nn

from ....sparse_model.cost import Count
from ....sparse_model.method.branches import Branch, Evaluation
from ....sparse_model.method.sparsity import Sparsity, short_route
from ....sparse_model.method.token_mask import TokenMask
from ....sparse_model.method.tokens import Staying, subsets
from ..plain import plain
from .families import family_of, numbered_blocks
from .family import Family, Stage
from .inputs import may_modulate_alike
from .route import KEY, routed
from .routing import bundled, rates


class HostModel:
    def __init__(self, model: ModelPatcher):
        self.model = model
        self.network = self._plain("diffusion_model")

    def _plain(self, name: str) -> nn.Module:
        return plain(self.model.model, self.model.object_patches_backup, name)

    @cached_property
    def family(self) -> Family:
        return family_of(self.network)

    @property
    def name(self) -> str:
        return self.family.name

    @property
    def sparsity(self) -> Sparsity:
        return self.model.get_attachment(KEY) or Sparsity()

    @property
    def depth(self) -> int:
        return len(numbered_blocks(self.network, self.family))

    @property
    def layer_names(self) -> list[str]:
        return [path.replace(".", " ") for path, *_ in numbered_blocks(self.network, self.family)]

    @property
    def default_route(self) -> Sparsity:
        return Sparsity((self.family.route(self.depth),))

    @property
    def trainers_route(self) -> Sparsity:
        return Sparsity((self.family.trainers(self.depth),))

    @property
    def short_route(self) -> Sparsity:
        return Sparsity((short_route(self.depth),))

    def tokens(self, shape: tuple[int, ...]) -> int:
        return math.prod(self.family.grid(self.network, shape[2:]))

    def text_tokens(self, positive: list | None) -> int:
        return 256 if positive is None else positive[0][0].shape[1]

    def staying(self, mask: TokenMask, shape: tuple[int, ...]) -> Staying:
        return mask.over(shape[2:], self.family.sides(self.network, len(shape) - 2))

    def counter(self, shape: tuple[int, ...], text: int, stay: int = 0) -> Count:
        """From the sizes of the linear layers in the blocks, times the tokens that run through each, and the two
        products of attention; embeddings and the last layer are left out. Two prompts are as long as each other and of
        one guidance: where time alone modulates a block they run side by side."""
        numbered = numbered_blocks(self.network, self.family)
        blocks = [(stage, self._plain(f"diffusion_model.{path}")) for path, stage, _ in numbered]
        stretches, tokens = list(self.sparsity.stretches(len(blocks))), self.tokens(shape)
        factors = self.sparsity.factors(len(blocks))
        kept = replace(subsets(), factors=factors, stay=Staying.first(stay, tokens) if stay else None)

        def count(branches: Sequence[Branch]) -> int:
            evaluation, total = Evaluation(tuple(branches)), 0
            sources = evaluation.sources
            rows = len(branches) if self.family.one_row else len(set(sources))  # until inputs keep other tokens
            groups = [chunks for gamma, chunks in rates(evaluation) if gamma < 1]
            alike = partial(may_modulate_alike, self.family, self.network, sources)
            together = bundled(groups, alike) if self.family.packed else []
            again = sum(len(chunks) for bundle in together for chunks in bundle[1:])  # modulated with the first
            for layers, route in stretches:
                if route is None:
                    total += rows * sum(block_cost(*blocks[i], tokens, text) for i in layers)
                    continue
                rows, keeps = len(branches), [kept.count(tokens, branch.gamma, route) for branch in branches]
                total += sum(block_cost(*blocks[i], keep, text) for i in layers for keep in keeps if keep)
                if all(keeps[chunk] for bundle in together for chunks in bundle for chunk in chunks):
                    total -= again * sum(modulation_cost(*blocks[i]) for i in layers)
            return total

        return count

    def routed(self, sparsity: Sparsity) -> ModelPatcher:
        return routed(self.model, self.family, sparsity)


def modulates(stage: Stage, name: str) -> bool:
    """Whether a layer of a block runs once for all of a row's tokens."""
    return "mod" in name.lower() or name.startswith(stage.modulation)


def modulation_cost(stage: Stage, block: nn.Module) -> int:
    """Multiply-adds of the part of `block_cost` that no token changes."""
    layers = [layer for name, layer in block.named_modules() if isinstance(layer, nn.Linear) and modulates(stage, name)]
    return sum(layer.in_features * layer.out_features for layer in layers)


def block_cost(stage: Stage, block: nn.Module, tokens: int, text: int) -> int:
    """Multiply-adds of one block for one picture of `tokens` image tokens and `text` text tokens."""
    text = tokens if stage.twin else text
    apart = bool(stage.over_text or stage.over_both)  # not all weights run over text
    cross = stage.text is None and apart
    total, width, further, again, shares = 0, None, False, False, {}
    for name, layer in block.named_modules():
        if hasattr(layer, "num_activated_experts"):  # a mixture: each token runs through some of its experts
            shares[f"{name}.experts."] = layer.num_activated_experts / len(layer.experts)
        if not isinstance(layer, nn.Linear) or name.startswith(stage.uncounted):
            continue
        if modulates(stage, name):
            length = 1
        elif name.startswith(stage.over_text):
            length = text
        else:
            length = tokens if apart and not name.startswith(stage.over_both) else tokens + text
            length += text if name.startswith(stage.reread) else 0
            width = width or layer.in_features
        again = again or name.startswith(stage.reread)
        further = further or name.startswith(stage.over_image or "?")
        share = next((share for experts, share in shares.items() if name.startswith(experts)), 1)
        total += round(share * length * layer.in_features * layer.out_features)
    keys = tokens if cross else tokens + text
    attention = keys * keys + (tokens * text if cross or again else 0) + (tokens * tokens if further else 0)
    return total + 2 * attention * width
