"""Sampling without a host: one Euler loop, guided by any rule under any schedule."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ..conditions.text import Condition, Text, concatenate
from .branches import Branch, Evaluation
from .guidance import NULL, POSITIVE, RANDOM, RULES
from .prediction import Prediction
from .schedule import Schedule
from .tokens import Subsets, TokenOrders


@dataclass(frozen=True)
class Denoiser:
    """A network with its prediction kind: D(x, sigma; condition) on any number of branches at once."""

    network: nn.Module
    prediction: Prediction
    _last: list = field(default_factory=list, init=False, repr=False, compare=False)

    def __call__(
        self, x: Tensor, sigma: float, conditions: Sequence[Condition], evaluation: Evaluation
    ) -> list[Tensor]:
        """x [B, C, H, W] and one condition of B samples per branch -> one D [B, C, H, W] per branch."""
        count = len(conditions)
        batch = x if count == 1 else x.repeat(count, 1, 1, 1)
        level = torch.full((len(batch),), float(sigma), device=x.device, dtype=x.dtype)
        given = self._joined(conditions)
        return list(self.prediction.denoise(self.network, batch, level, given, evaluation).chunk(count))

    def _joined(self, conditions: Sequence[Condition]) -> Condition:
        """The conditions as one batch, which is made once for steps of the same ones."""
        given, joined = self._last[0] if self._last else ((), None)
        if len(given) != len(conditions) or any(a is not b for a, b in zip(given, conditions, strict=True)):
            joined = concatenate(conditions)
            self._last[:] = [(tuple(conditions), joined)]
        return joined


class Compiled(nn.Module):
    """A network through torch.compile, once per count of kept tokens: which ones they are is decided in front of it."""

    def __init__(self, network: nn.Module, **options):
        super().__init__()
        self.network, self.compiled = network, torch.compile(network, **options)

    def forward(self, x: Tensor, t: Tensor, y: Tensor, evaluation: Evaluation) -> Tensor:
        return self.compiled(x, t, y, evaluation.prepare(self.network, x))


def noise(seed: int, batch: int, shape: Sequence[int]) -> Tensor:
    """Starting noise [batch, *shape]; sample i depends on seed + i alone, whatever the batch."""
    return torch.stack([torch.randn(*shape, generator=_generator(seed + i)) for i in range(batch)])


def _generator(seed: int) -> torch.Generator:
    """Seeds are numbers of 64 bits, as a host's are; behind the last one comes 0."""
    return torch.Generator().manual_seed(seed % 2**64)


@torch.inference_mode()
def sample(
    model: Denoiser,
    condition: Condition,
    schedule: Schedule,
    *,
    shape: Sequence[int],
    steps: int = 40,
    seed: int = 0,
    cfg: float = 1.0,
    null: Condition | None = None,
    auxiliary: Denoiser | None = None,
    orders: TokenOrders | None = None,
    callback: Callable[[int, Tensor], None] | None = None,
) -> Tensor:
    """Guided Euler sampling from noise: a condition of B samples -> clean [B, *shape] in the network's own range.

    `cfg` is the second scale of the rule SG beside CFG. `null` is the null condition of rules that have one; for labels
    it need not be given. `auxiliary` is the weaker checkpoint of AG rules. `orders` are the token orders of
    this seed, where many runs of it draw them once. `callback(step, D)` is called once per step.
    """
    rule = RULES[schedule.rule]
    if rule.auxiliary != (auxiliary is not None):
        raise ValueError(f"{schedule.rule} {'needs a' if rule.auxiliary else 'takes no'} weaker second checkpoint.")
    sigmas = model.prediction.sigmas(steps).tolist()
    like = condition.embeddings if isinstance(condition, Text) else condition
    x = noise(seed, len(like), shape).to(like) * sigmas[0] * model.prediction.noise_scale
    make = {
        POSITIVE: lambda: condition,
        NULL: lambda: null_condition(condition) if null is None else null,
        RANDOM: lambda: independent_condition(condition, seed),
    }
    conditions = {name: make[name]() for name in rule.conditions}
    kept = Subsets(orders or TokenOrders(seed, steps), selection=schedule.selection)
    for step, (sigma, following) in enumerate(itertools.pairwise(sigmas)):
        now = schedule.at(step / steps, cfg)
        predictions = predict((model, auxiliary), x, sigma, rule.branches(now), conditions, kept.at(step))
        clean = rule.combine(predictions, now)
        x = (x - clean).div_(sigma).mul_(following - sigma).add_(x)
        if callback:
            callback(step, clean)
    return x


def predict(
    models: tuple[Denoiser, Denoiser | None],
    x: Tensor,
    sigma: float,
    branches: Sequence[Branch],
    conditions: Mapping[str, Condition],
    kept: Subsets,
) -> list[Tensor]:
    """One D [B, C, H, W] per branch, in one pass of each of the two models (the main one and the auxiliary)."""
    found = {}
    for auxiliary, model in enumerate(models):
        own = tuple(branch for branch in branches if branch.auxiliary == bool(auxiliary))
        if own:
            given = [conditions[branch.condition] for branch in own]
            found |= zip(own, model(x, sigma, given, Evaluation(own, kept)), strict=True)
    return [found[branch] for branch in branches]


def null_condition(condition: Condition) -> Tensor:
    """No label at all; ValueError for text, whose null condition only its encoder or its model knows."""
    if isinstance(condition, Text):
        raise ValueError("this rule guides away from the null condition, so the empty prompt has to be given encoded.")
    return torch.zeros_like(condition)


def independent_condition(condition: Condition, seed: int) -> Tensor:
    """ICG's condition: one random label per sample, independent of the sample's own (arXiv 2407.02687)."""
    if isinstance(condition, Text):
        raise ValueError("the rule ICG draws random labels, so it needs a class-conditional model; use CFG or SG.")
    batch, classes = condition.shape
    labels = [torch.randint(classes, (), generator=_generator(seed + i)) for i in range(batch)]
    return torch.nn.functional.one_hot(torch.stack(labels), classes).to(condition)
