"""One guided evaluation: the strong and the weak prediction, through the host's own batching."""

import math
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import comfy.conds
import comfy.samplers
import torch
from torch import Tensor

from ....sparse_model.method.guidance import RULES
from ....sparse_model.method.sampling import independent_condition
from .run import KEY, Mark, Run, with_entry

Evaluate = Callable[[dict[str, Any]], list[Tensor]]


def evaluate_conditions(args: dict[str, Any]) -> list[Tensor]:
    """What the host does without a hook: one prediction per list of conditions."""
    return comfy.samplers.calc_cond_batch(
        args["model"], args["conds"], args["input"], args["sigma"], args["model_options"]
    )


@dataclass(frozen=True)
class GuidanceHook:
    """The host's `sampler_calc_cond_batch_function`: [positive, negative] -> [strong, weak] predictions.

    `evaluate` is the hook that another node set before, or the host's default. `weak` evaluates the weak branch
    elsewhere (a second model): weak(args, mark) -> prediction.
    """

    evaluate: Evaluate = evaluate_conditions
    weak: Callable[[dict[str, Any], Mark], Tensor] | None = None

    def __call__(self, args: dict[str, Any]) -> list[Tensor]:
        options = args["model_options"]
        run = options.get("transformer_options", {}).get(KEY)
        if not isinstance(run, Run):  # somebody samples without a guider
            return self.evaluate(args)
        strong, weak = args["conds"]
        rule = RULES[run.schedule.rule]
        now = run.settings(args["model"].model_sampling, float(args["sigma"].flatten()[0]))
        mark = run.next_mark(now, shared=rule.condition == "same")
        marked = {**args, "model_options": with_entry(options, mark)}
        if weak is None:
            return self.evaluate({**marked, "conds": [strong, None]})
        if now.omega == 1:
            prediction = self.evaluate({**marked, "conds": [strong, None]})[0]
            return [prediction, prediction.clone()]
        if rule.auxiliary:
            prediction = self.evaluate({**marked, "conds": [strong, None]})[0]
            return [prediction, rescale(prediction, self.weak(args, mark), now.omega, run.cfg)]
        if rule.condition == "same":
            weak = strong
        elif rule.condition == "random":
            weak = random_condition(strong, args["model"].spec.config.num_classes, len(args["input"]), run.seed)
        predictions = self.evaluate({**marked, "conds": [strong, weak]})
        return [predictions[0], rescale(predictions[0], predictions[1], now.omega, run.cfg)]


def rescale(strong: Tensor, weak: Tensor, omega: float, cfg: float | None) -> Tensor:
    """The weak prediction that makes a host guiding at scale `cfg` arrive at scale `omega`.

    strong + (weak - strong) * (omega - 1) / (cfg - 1), and the weak prediction itself, bit for bit, where both agree.
    """
    if cfg is None or math.isclose(omega, cfg, rel_tol=1e-6):
        return weak
    return strong + (weak - strong) * ((omega - 1) / (cfg - 1))


def random_condition(conditions: list[dict[str, Any]], classes: int, batch: int, seed: int) -> list[dict[str, Any]]:
    """The conditions with one random label per sample in place of their own (ICG, arXiv 2407.02687)."""
    weights = independent_condition(torch.zeros(batch, classes), seed).unsqueeze(1)  # [B, 1, classes]
    replaced = []
    for condition in conditions:
        own = condition["model_conds"].get("c_crossattn")
        label = comfy.conds.CONDCrossAttn(weights if own is None else weights.to(own.cond))
        replaced.append(
            {
                **condition,
                "uuid": uuid.uuid4(),
                "model_conds": {**condition["model_conds"], "c_crossattn": label},
            }
        )
    return replaced
