"""Looking at what CFG and a schedule do to a picture, along one path of CFG."""

import logging
import time
from dataclasses import dataclass
from typing import Any

from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ....sparse_model.method.branches import Branch, Evaluation
from ....sparse_model.method.guidance import NULL, POSITIVE
from ....sparse_model.method.matching import Look, Matching
from ....sparse_model.method.schedule import Schedule, constant
from ..adapters import adapter_of
from ..wire import KEY
from .checks import check_plan
from .guider import SparseGuider
from .hook import Evaluate, evaluate_branches, own_ids
from .patch import HOOK, earlier_hook, unguided
from .progress import Progress
from .sampling import fitting, sample_latent
from .telling import untold


@dataclass(frozen=True, eq=False)
class Looks:
    """A `sampler_calc_cond_batch_function` below CFG's own: asked for D and D(null), it evaluates the branches of a
    schedule as well and writes down what it saw."""

    evaluate: Evaluate
    matching: Matching

    def __deepcopy__(self, memo: dict) -> "Looks":
        """Old hosts copy the options of a model deeply at every clone; what was seen has one place."""
        return self

    def __call__(self, args: dict[str, Any]) -> list[Tensor]:
        sigma = float(args["sigma"].flatten()[0])
        moment = Progress(args["model"].model_sampling)(sigma)
        asked, places = self.matching.asked(args["model_options"]["transformer_options"][KEY], moment)
        given = dict(zip((POSITIVE, NULL), args["conds"], strict=True))
        conds = [own_ids(given[branch.condition], place) for place, branch in enumerate(asked.branches)]
        found = evaluate_branches(self.evaluate, args, asked, conds)
        self.matching.looks.append(Look.at(moment, sigma, [found[place] for place in places]))
        return found[:2]


@dataclass(frozen=True)
class Match:
    """What came of it: the schedule, how many looks it took, what they cost against as many steps of CFG (None for
    networks that nobody can count), and how many seconds they took."""

    schedule: Schedule
    looks: int
    cost: float | None
    seconds: float


def match(
    model: ModelPatcher,
    schedule: Schedule,
    cfg: float,
    positive: list,
    negative: list | None,
    latent: dict[str, Any],
    *,
    seed: int,
    looks: int,
) -> Match:
    """The schedule at the omega that moves the latent as far as CFG at a scale `cfg`, seen along `looks` Euler steps of
    CFG. ValueError in one sentence where there is none."""
    if cfg <= 1:
        raise ValueError(f"A cfg of {cfg:g} is no CFG, so there is nothing to match; give the cfg that you use.")
    check_plan(model, schedule)
    matching = Matching(schedule)
    cost = _cost(model, matching, positive, tuple(fitting(model, latent).shape))
    if cost is not None:
        logging.info("Sparse Guidance Match: %d steps, each about as long as %.1f of CFG.", looks, cost)
    watched = model.clone()
    watched.model_options[HOOK] = Looks(earlier_hook(unguided(model).model_options), matching)
    guider = SparseGuider(watched, constant(0.0, 0.0, cfg, "CFG"), positive, negative)
    untold(guider)
    started = time.perf_counter()
    sample_latent(guider, latent, seed=seed, steps=looks, sampler_name="euler", scheduler="simple", denoise=1.0)
    return Match(matching.matched(cfg), len(matching.looks), cost, time.perf_counter() - started)


def _cost(model: ModelPatcher, matching: Matching, positive: list, shape: tuple[int, ...]) -> float | None:
    """Multiply-adds of a look as a share of a step of CFG."""
    adapter = adapter_of(model)
    try:
        count = adapter.counter(shape, adapter.text_tokens(positive))
    except ValueError:
        return None
    asked, _ = matching.asked(Evaluation(), 0.5)
    return count(asked.branches) / (2 * count((Branch(),)))
