"""What a plan costs on a MODEL: multiply-adds of every step, for this pack's networks and for the host's own.

The host's are counted from the sizes of the linear layers in their blocks, times the tokens that run through each, and
the two products of attention; embeddings and the last layer are left out.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from ...sparse_model.cost import Cost, branch_cost, shared_cost
from ...sparse_model.guidance import RULES
from ...sparse_model.schedule import Schedule, Settings
from ...sparse_model.tokens import keep_count
from .families import family_of, numbered_blocks
from .family import Stage
from .model import fitted_text, spec_of
from .route import sparsity_of, tokens_of


@dataclass(frozen=True)
class Step:
    """One step: the schedule's values, how many tokens each branch keeps, and its cost for one picture."""

    now: Settings
    kept_strong: int
    kept_weak: int | None
    cost: Cost


def step_costs(model: Any, schedule: Schedule, steps: int, shape: tuple[int, ...], text: int) -> list[Step]:
    """The cost of every step over a latent [B, C, ...] with `text` text tokens, beside no guidance and CFG, dense."""
    rule, tokens = RULES[schedule.rule], tokens_of(model, shape)
    count = _OwnCount(model, shape, text) if spec_of(model) is not None else _HostCount(model, tokens, text)
    dense, found = count.branch(0.0), []
    for step in range(steps):
        now = schedule.at(step / steps)
        guided = now.omega != 1
        together = guided and rule.condition == "same" and not rule.auxiliary
        cost = Cost(
            unguided=dense,
            cfg=2 * dense,
            strong=count.branch(now.gamma_strong),
            weak=count.branch(now.gamma_weak) if guided else 0,
            shared=count.shared(now.gamma_weak) if together else 0,
        )
        kept = keep_count(tokens, now.gamma_weak) if guided else None
        found.append(Step(now, keep_count(tokens, now.gamma_strong), kept, cost))
    return found


def text_tokens(model: Any, positive: list | None) -> int:
    """How many text tokens a conditioning brings to the model, or, without one, how many there can be."""
    spec = spec_of(model)
    own = None if spec is None else spec.text
    if positive is None:
        return 256 if own is None else own.length
    embeddings, options = positive[0]
    if own is None:
        return embeddings.shape[1]
    return fitted_text(own, embeddings, options.get("attention_mask")).mask.shape[1]


def mean(costs: Iterable[Cost]) -> Cost:
    """The mean of several steps' costs."""
    costs = list(costs)
    names = ("unguided", "cfg", "strong", "weak", "shared")
    return Cost(**{name: sum(getattr(cost, name) for cost in costs) / len(costs) for name in names})


class _OwnCount:
    """A network of this pack, counted while its own forward runs on shapes; a square of the latent's area."""

    def __init__(self, model: Any, shape: tuple[int, ...], text: int):
        self.spec = replace(spec_of(model), sparsity=sparsity_of(model))
        if self.spec.text is not None:
            self.spec = replace(self.spec, text=replace(self.spec.text, length=text))
        patch = self.spec.config.patch_size
        self.size = max(round((shape[-1] * shape[-2]) ** 0.5 / patch), 1) * patch

    def branch(self, gamma: float) -> int:
        return branch_cost(self.spec, gamma, True, self.size)

    def shared(self, gamma_weak: float) -> int:
        return shared_cost(self.spec, gamma_weak, True, self.size)


class _HostCount:
    """A network of the host."""

    def __init__(self, model: Any, tokens: int, text: int):
        network = model.model.diffusion_model
        self.blocks = [(stage, block) for _, stage, block in numbered_blocks(network, family_of(network))]
        self.stretches = list(sparsity_of(model).stretches(len(self.blocks)))
        self.tokens, self.text = tokens, text

    def branch(self, gamma: float) -> int:
        keep = keep_count(self.tokens, gamma)
        total = 0
        for layers, route in self.stretches:
            tokens = self.tokens if route is None else keep
            total += sum(block_cost(*self.blocks[i], tokens, self.text) for i in layers) if tokens else 0
        return total

    def shared(self, gamma_weak: float) -> int:
        """Everything in front of the first route."""
        layers, route = self.stretches[0]
        return 0 if route is not None else sum(block_cost(*self.blocks[i], self.tokens, self.text) for i in layers)


def block_cost(stage: Stage, block: nn.Module, tokens: int, text: int) -> int:
    """Multiply-adds of one block for one picture of `tokens` image tokens and `text` text tokens."""
    text = tokens if stage.twin else text
    apart = bool(stage.over_text or stage.over_both)  # not all weights run over text
    cross = stage.text is None and apart
    total, width, further, again, shares = 0, None, False, False, {}
    for name, layer in block.named_modules():
        if hasattr(layer, "num_activated_experts"):  # a mixture: each token runs through some of its experts
            shares[f"{name}.experts."] = layer.num_activated_experts / len(layer.experts)
        if not isinstance(layer, nn.Linear):
            continue
        if "mod" in name.lower() or name.startswith(stage.modulation):
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
