"""What all cases have in common: the pack in its host, a model of the host's and one of its own."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hosted_pack import load_pack

checkout, pack, checkpoint, *wanted = sys.argv[1:]
part = load_pack(checkout, pack, "--use-pytorch-cross-attention")

import comfy.samplers  # noqa: E402
import torch  # noqa: E402
from probing import SEED, predictions  # noqa: E402
from torch import Tensor  # noqa: E402
from zoo import ZOO, build, conditions, latent  # noqa: E402

guided = part("nodes.host.guide.patch").guided
SparseGuider = part("nodes.host.guide.guider").SparseGuider
adapter_of = part("nodes.host.adapters").adapter_of
first_evaluation = part("nodes.host.guide.run").first_evaluation
Route = part("sparse_model.method.sparsity").Route
Sparsity = part("sparse_model.method.sparsity").Sparsity
subsets = part("sparse_model.method.tokens").subsets
constant = part("sparse_model.method.schedule").constant


MIDDLE, PLAN = Sparsity((Route(1, -2, 0.5),)), constant(0.25, 0.75, 2.0)


Model = tuple[Any, Tensor, list, list]
"""A patcher, a latent, a positive and a negative conditioning."""


def host(name: str = "FLUX.1", **extra: Any) -> Model:
    animal = ZOO[name]
    return build(animal), latent(animal), conditions(animal, 1, **extra), conditions(animal, 3, **extra)


def own() -> Model:
    patcher = part("nodes.host.own.loading").load(checkpoint)
    x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    label = torch.tensor([[[1.0, 0.0, 1.0]]])
    return patcher, x, [[label, {}]], [[torch.zeros_like(label), {}]]


MODELS = {"host": host, "own": own}


def routed(patcher: Any, sparsity: Any = MIDDLE) -> Any:
    return adapter_of(patcher).routed(sparsity)


def sg(patcher: Any, x: Tensor, positive: list, plan: Any = PLAN) -> list[Tensor]:
    """Strong and weak prediction."""
    return predictions(guided(patcher, plan), positive, None, x, 2.0)


def sampled(patcher: Any, model: Model, cfg: Any = 2.0, steps: int = 4, guider: type | None = None) -> Tensor:
    """Euler steps with a stock guider."""
    _, x, positive, negative = model
    guide = (guider or comfy.samplers.CFGGuider)(patcher)
    guide.set_conds(positive, negative)
    guide.set_cfg(cfg)
    sigmas, sampler = torch.linspace(1, 0, steps + 1), comfy.samplers.sampler_object("euler")
    return guide.sample(x, torch.zeros_like(x), sampler, sigmas, disable_pbar=True, seed=SEED)


@contextmanager
def warnings(level: int = logging.WARNING) -> Iterator[list[str]]:
    """What is logged at a level or above it."""
    said: list[str] = []

    class Listening(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    handler, logger = Listening(level), logging.getLogger()
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(min(level, before))
    try:
        yield said
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
