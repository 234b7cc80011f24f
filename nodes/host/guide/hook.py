"""One guided evaluation: the predictions of a step's branches, through the host's own batching."""

import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import comfy.conds
import comfy.samplers
import torch
from torch import Tensor

from ....sparse_model.method.branches import Evaluation
from ....sparse_model.method.guidance import NULL, POSITIVE, RANDOM
from ....sparse_model.method.sampling import independent_condition
from ..wire import KEY, BranchId, foreign, with_entry
from .easycache import left_out, strong_leads
from .run import Run

Evaluate = Callable[[dict[str, Any]], list[Tensor]]


def evaluate_conditions(args: dict[str, Any]) -> list[Tensor]:
    """What the host does without a hook: one prediction per list of conditions."""
    return comfy.samplers.calc_cond_batch(
        args["model"], args["conds"], args["input"], args["sigma"], args["model_options"]
    )


def evaluate_branches(
    evaluate: Evaluate, args: dict[str, Any], evaluation: Evaluation, conds: list[list | None]
) -> list[Tensor]:
    """One prediction per entry of `conds`, the conditions of an evaluation's branches.

    Another node's hook is called as the host calls it, with two: of more branches it gets the first and the null one,
    which are CFG's own, and the host evaluates the rest.
    """
    if len(conds) < 3 or evaluate is evaluate_conditions:
        direct = evaluate is evaluate_conditions and not any(map(foreign, controls(conds)))
        marked = with_entry(args["model_options"], evaluation, direct)
        return evaluate({**args, "conds": conds, "model_options": marked})
    places = range(len(conds))
    pair = (0, next(place for place in places if evaluation.branches[place].condition == NULL))
    found = {}
    for way, chosen in ((evaluate, pair), (evaluate_conditions, [place for place in places if place not in pair])):
        branches, asked = (tuple(values[place] for place in chosen) for values in (evaluation.branches, conds))
        part = replace(evaluation, branches=branches)
        predictions = evaluate_branches(way, args, part, list(asked))
        found |= zip(chosen, predictions, strict=True)
    return [found[place] for place in places]


def controls(conds: list[list | None]) -> Iterator[Any]:
    """The ControlNets of conditions, which stand one behind the other, and what each is called by."""
    for condition in chain.from_iterable(conditions or () for conditions in conds):
        control = condition.get("control")
        while control is not None:
            yield from (control, control.get_control)
            control = getattr(control, "previous_controlnet", None)


@dataclass(frozen=True)
class GuidanceHook:
    """The host's `sampler_calc_cond_batch_function`: [positive, negative] -> [strong, weak] predictions.

    `evaluate` is the hook that another node set before, or the host's default. `auxiliary` evaluates auxiliary branches
    with a second model: auxiliary(args, evaluation) -> one prediction per branch.
    """

    evaluate: Evaluate = evaluate_conditions
    auxiliary: Callable[[dict[str, Any], Evaluation], list[Tensor]] | None = None

    def __call__(self, args: dict[str, Any]) -> list[Tensor]:
        run = run_of(args["model_options"])
        if run is None:  # somebody samples without a guider
            return self.evaluate(args)
        positive, negative = args["conds"]
        # CFG away from the condition itself is none
        scaled = negative is not None and (negative is not positive if run.rule.beside_cfg else run.scaled)
        run.unscaled += not scaled
        now = run.settings(args["model"].model_sampling, args["sigma"], scaled)
        alone = not run.rule.needed(now)
        null = alone and wants_null(run, scaled, positive, negative)
        evaluation = run.next_evaluation(now, null)
        conditions = {POSITIVE: positive, NULL: negative}
        if RANDOM in run.rule.conditions:
            classes = args["model"].spec.config.num_classes
            conditions[RANDOM] = random_condition(positive, classes, len(args["input"]), run.seed)
        before = left_out(args["model_options"])
        predictions = self._predict(args, evaluation, conditions)
        run.left_out[evaluation.branches] += left_out(args["model_options"]) - before
        if null:
            return predictions
        strong, weak = run.pair(predictions, now)
        if weak is None:  # the host has zeros where it asks for no prediction
            weak = torch.zeros_like(strong) if negative is None else strong.clone()
        return [strong, weak]

    def _predict(self, args: dict[str, Any], evaluation: Evaluation, conditions: dict[str, Any]) -> list[Tensor]:
        """One prediction per branch; a branch's place in the list of conditions is what a network knows it by."""
        branches = evaluation.branches
        conds = [
            None if branch.auxiliary else own_ids(conditions[branch.condition], place)
            for place, branch in enumerate(branches)
        ]
        if len(conds) == 1:
            conds.append(None)  # other nodes' hooks expect two
        strong_leads(args["model_options"], conds[0] or [])
        predictions = evaluate_branches(self.evaluate, args, evaluation, conds)
        if not any(branch.auxiliary for branch in branches):
            return predictions[: len(branches)]
        others = self.auxiliary(args, evaluation)
        return [other if b.auxiliary else own for b, own, other in zip(branches, predictions, others, strict=True)]


def wants_null(run: Run, scaled: bool, positive: list, negative: list | None) -> bool:
    """Whether the sampler asks for an unconditional prediction although it will not guide with it: at a scale of 1 that
    is for other nodes (`disable_cfg1_optimization`), which get it as without us."""
    return negative is not None and negative is not positive and not (run.relative and scaled)


def own_ids(conditions: list[dict[str, Any]], branch: int) -> list[dict[str, Any]]:
    """The conditions of a branch with ids of its own; the first branch has those that the host gave them."""
    if branch == 0:
        return conditions
    known = ((condition, condition["uuid"]) for condition in conditions)
    return [{**condition, "uuid": BranchId(getattr(own, "condition", own), branch)} for condition, own in known]


def add_pull(args: dict[str, Any]) -> Tensor:
    """The host's `sampler_post_cfg_function` of rules that have CFG and more: what CFG has made, and the rest."""
    run = run_of(args["model_options"])
    return args["denoised"] if run is None or run.pull is None else args["denoised"] + run.pull


def run_of(model_options: dict[str, Any]) -> Run | None:
    entry = model_options.get("transformer_options", {}).get(KEY)
    return entry if isinstance(entry, Run) else None


def random_condition(conditions: list[dict[str, Any]], classes: int, batch: int, seed: int) -> list[dict[str, Any]]:
    """The conditions with one random label per sample in place of their own (ICG, arXiv 2407.02687): other inputs, and
    the same ones in every step."""
    weights = independent_condition(torch.zeros(batch, classes), seed).unsqueeze(1)  # [B, 1, classes]
    replaced = []
    for condition in conditions:
        own = condition["model_conds"].get("c_crossattn")
        label = comfy.conds.CONDCrossAttn(weights if own is None else weights.to(own.cond))
        replaced.append(
            {
                **condition,
                "uuid": uuid.uuid5(condition["uuid"], RANDOM),
                "model_conds": {**condition["model_conds"], "c_crossattn": label},
            }
        )
    return replaced
