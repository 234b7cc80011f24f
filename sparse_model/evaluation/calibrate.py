"""Calibration: the best schedule that a budget allows, written into the checkpoint that it was found for."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from ..checkpoints.checkpoint import describe, open_checkpoint
from ..checkpoints.spec import Setting
from ..method.guidance import RULES
from ..method.schedule import Curve, Schedule
from ..method.sparsity import Sparsity
from .measure import UNGUIDED
from .sweep import Sweep, spread

PLAN = "calibrate"
NO_GUIDANCE = "unguided"
REFUSED = 200  # suggestions in a row that cost too much or are known before the search makes them sparser, or ends

SHAPES = {  # a sparsity rate over progress, up to gamma
    "constant": Curve.constant,
    "rising": lambda gamma: Curve.cosine(0.0, gamma),
    "falling": lambda gamma: Curve.cosine(gamma, 0.0),
}
SCALES = {  # a guidance scale over progress, up to omega
    "constant": Curve.constant,
    "rising": lambda omega: Curve.linear(1.0, omega),
    "falling": lambda omega: Curve.linear(omega, 1.0),
}
STARTS, ENDS = (0.0, 0.2, 0.4), (0.6, 0.8, 1.0)  # of guidance


class OverBudget(ValueError):
    """No schedule costs as little as was allowed."""


class Plan(NamedTuple):
    """A schedule, and the second scale of the rules that have one."""

    schedule: Schedule
    cfg: float = 1.0


def calibrate(sweep: Sweep, checkpoint: Path, budgets: Sequence[float]) -> Schedule:
    """Searches SG's schedule within each budget as `best_plan` does, and writes what was found into the checkpoint: the
    first one as its recommendation, and as settings to choose from, by name, those that win: their pictures are
    better than those of all that cost less, no guidance among them, by more than two spreads over the seeds.

    ValueError for a checkpoint without a route, if no schedule meets a budget, or for several budgets and one seed,
    which has no spread.
    """
    if not sweep.bench.spec.sparsity:
        raise ValueError(f"{checkpoint.name}: has no token route in its metadata, so there is nothing to calibrate.")
    if checkpoint.suffix != ".safetensors":
        raise ValueError(f"{checkpoint.name}: the result is written into .safetensors only; convert it first.")
    if len(budgets) > 1 and sweep.sizes.seeds < 2:
        raise ValueError("which of several budgets win is told by the spread over seeds; raise --seeds to 2 or more.")
    plans = {budget: best_plan(sweep, "SG", budget) for budget in budgets}
    best, steps = plans[budgets[0]].schedule, sweep.sizes.steps
    won = winners(sweep, plans) if len(plans) > 1 else {}
    if sweep.bench.accelerator.is_main_process:
        with open_checkpoint(checkpoint) as opened:
            spec = opened.spec
        kept = tuple(Setting(f"{budget:g} of CFG", plan.schedule, steps) for budget, plan in won.items())
        describe(checkpoint, replace(spec, schedule=best, steps=steps, settings=kept or spec.settings))
        for budget, plan in plans.items():
            words = f"{budget:g} of CFG: {plan.schedule} at {relative_cost(sweep, plan):.3f} of CFG's cost"
            print(f"{checkpoint}: {words}{', offered by this name' * (budget in won)}")
    sweep.bench.accelerator.wait_for_everyone()
    return best


def winners(sweep: Sweep, plans: Mapping[float, Plan]) -> dict[float, Plan]:
    """Of the plans of several budgets, each measured over the seeds, those that are worth what they cost."""
    best = sweep.final("settings", "unguided", UNGUIDED)
    found = {}
    for budget, plan in sorted(plans.items()):
        rows = sweep.final("settings", f"SG at {budget:g} of CFG", plan.schedule)
        (low, error), (high, other) = (spread([row["frechet"] for row in side]) for side in (rows, best))
        if high - low > 2 * max(error, other):
            found[budget], best = plan, rows
    return found


def best_plan(sweep: Sweep, rule: str, budget: float, *wider: float) -> Plan:
    """The plan of a rule, or of NO_GUIDANCE, with the lowest Frechet distance of as many as the sweep tries that cost
    at most `budget` of CFG, and of those that searches within `wider` budgets try and that cost no more either.

    OverBudget if there is none. Schedules whose pictures show less of what was asked than without guidance, by more
    than chance, are passed over: with a masked model the lowest distance of all belongs to oversaturated pictures.
    """
    least = no_less_than(sweep.search("unguided", UNGUIDED)["consistency"], sweep.sizes.search)
    found = {}
    for within in dict.fromkeys((budget, *wider)):
        tried = _tried(sweep, rule, within, least)
        found |= {plan: row for plan, row in tried.items() if relative_cost(sweep, plan) <= budget}
    if not found:
        raise OverBudget(f"no schedule costs at most {budget:g} of CFG with this route; raise --budget.")
    faithful = [plan for plan, row in found.items() if row["consistency"] >= least]
    return min(faithful or found, key=lambda plan: found[plan]["frechet"])


def _tried(sweep: Sweep, rule: str, budget: float, least: float) -> dict[Plan, dict[str, Any]]:
    """Plan -> row, of as many plans as the sweep tries that cost at most `budget` of CFG; `least` is the consistency
    that is asked of them.

    Omega, whether it rises or falls, the active interval, and for sparse rules gammas and their shapes are suggested by
    Optuna, from the same ranges for every rule. What costs more is passed over; where that happens too often, the
    strong branch is made sparser until it fits, so that small budgets get their trials, too.
    """
    try:
        import optuna
    except ImportError as error:
        raise ValueError("calibration needs the package optuna: pip install -r requirements-evaluate.txt") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    trials = sweep.sizes.trials
    # every process asks a study of its own, with the same seed and the same answers
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0, n_startup_trials=max(trials // 3, 1)))
    found: dict[Plan, dict[str, Any]] = {}
    refused, sparser = 0, False
    while len(found) < trials and refused < 2 * REFUSED:
        trial = study.ask()
        sparser = sparser or refused == REFUSED
        params, plan = next(
            (
                (params, plan)
                for params, plan in _candidates(trial, rule, sweep.bench.spec.sparsity, sparser)
                if plan is not None and plan not in found and relative_cost(sweep, plan) <= budget
            ),
            (None, None),
        )
        study.tell(trial, state=optuna.trial.TrialState.FAIL)  # what counts is added below: it may be another
        if plan is None:
            refused += 1
            continue
        refused = 0
        row = found[plan] = sweep.search(rule, plan.schedule, PLAN, plan.cfg)
        known = {"params": params, "distributions": trial.distributions, "value": row["frechet"]}
        constraints = {"shows less than no guidance": least - row["consistency"]}
        study.add_trial(optuna.trial.create_trial(**known, constraints=constraints))
    return found


def no_less_than(consistency: float, samples: int) -> float:
    """What a mean of so many samples may be by chance if it is truly this one: two standard errors of a difference,
    of the widest distribution between 0 and 1 that has this mean."""
    return consistency - 2 * math.sqrt(2 * consistency * (1 - consistency) / samples)


def _candidates(trial, rule: str, sparsity: Sparsity, sparser: bool) -> Iterator[tuple[dict[str, Any], Plan | None]]:
    """(parameters, plan) as suggested, and if asked, with a sparser and sparser strong branch."""
    from optuna.trial import FixedTrial

    plan = suggest(trial, rule, sparsity)
    yield trial.params, plan
    if sparser and "gamma_strong" in trial.params:
        for gamma in range(trial.params["gamma_strong"] + 1, trial.distributions["gamma_strong"].high + 1):
            params = trial.params | {"gamma_strong": gamma}
            yield params, suggest(FixedTrial(params), rule, sparsity)


def suggest(trial, rule: str, sparsity: Sparsity) -> Plan | None:
    """A plan of a rule from an Optuna trial; None where SG's strong branch would not be the denser one. Without
    guidance, how sparse the one branch is remains to be found."""
    masked = sparsity.mask is not None  # then little sparsity goes a long way (arXiv 2601.01608, fig. 6)
    high_weak, high_strong = (15, 10) if masked else (20, 15)  # in steps of 0.05
    if rule == NO_GUIDANCE:
        strong = SHAPES[trial.suggest_categorical("shape", list(SHAPES))](
            trial.suggest_int("gamma", 0, high_strong) / 20
        )
        return Plan(Schedule(strong, Curve.constant(1.0), Curve.constant(1.0)))
    strong = weak = Curve.constant(0.0)
    known = RULES[rule]
    if sparse := not known.dense:
        low_weak = (2 if masked else 5) if known.contrasts_sparsity else 0
        gamma_weak = trial.suggest_int("gamma_weak", low_weak, high_weak) / 20
        gamma_strong = trial.suggest_int("gamma_strong", 0, high_strong) / 20
    omega = SCALES[trial.suggest_categorical("scale", list(SCALES))](trial.suggest_int("omega", 11, 40) / 10)
    cfg = trial.suggest_int("cfg", 11, 40) / 10 if known.beside_cfg else 1.0
    if sparse:
        strong = SHAPES[trial.suggest_categorical("shape", list(SHAPES))](gamma_strong)
        # the paper's AG + SG grows denser in the weak branch
        shape = trial.suggest_categorical("shape_weak", ["constant", "falling"]) if known.auxiliary else "constant"
        weak = SHAPES[shape](gamma_weak)
    start = trial.suggest_categorical("start", STARTS)
    end = trial.suggest_categorical("end", ENDS)
    if known.contrasts_sparsity and gamma_strong >= gamma_weak:
        return None
    return Plan(Schedule(strong, weak, omega, rule, start=start, end=end), cfg)


def relative_cost(sweep: Sweep, plan: Plan) -> float:
    cost = sweep.bench.cost(plan.schedule, sweep.sizes.steps, plan.cfg)
    return cost.total / cost.cfg
