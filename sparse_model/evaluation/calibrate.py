"""Calibration: the best schedule that a budget allows, written into the checkpoint that it was found for."""

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from ..checkpoints.checkpoint import read, save
from ..cost import step_cost
from ..method.guidance import RULES
from ..method.schedule import Curve, Schedule
from ..method.sparsity import Sparsity
from .measure import UNGUIDED
from .sweep import Sweep

PLAN = "calibrate"
NO_GUIDANCE = "unguided"
REFUSED = 200  # suggestions in a row over the budget before the search gives up

SHAPES = {  # a sparsity rate over progress, up to gamma
    "constant": Curve.constant,
    "rising": lambda gamma: Curve.cosine(0.0, gamma),
    "falling": lambda gamma: Curve.cosine(gamma, 0.0),
}


class Plan(NamedTuple):
    """A schedule, and the second scale of the rules that have one."""

    schedule: Schedule
    cfg: float = 1.0


def calibrate(sweep: Sweep, checkpoint: Path, budget: float) -> Schedule:
    """Searches SG's schedule as `best_plan` does, and writes it into the checkpoint as its recommendation.

    ValueError for a checkpoint without a route, or a budget that no schedule meets.
    """
    if not sweep.bench.spec.sparsity:
        raise ValueError(f"{checkpoint.name}: has no token route in its metadata, so there is nothing to calibrate.")
    if checkpoint.suffix != ".safetensors":
        raise ValueError(f"{checkpoint.name}: the result is written into .safetensors only; convert it first.")
    best, _ = plan = best_plan(sweep, "SG", budget)
    if sweep.bench.accelerator.is_main_process:
        spec, state = read(checkpoint)
        save(state, replace(spec, schedule=best, steps=sweep.sizes.steps), checkpoint)
        print(f"{checkpoint}: {best} at {relative_cost(sweep, plan):.3f} of CFG's cost")
    sweep.bench.accelerator.wait_for_everyone()
    return best


def best_plan(sweep: Sweep, rule: str, budget: float) -> Plan:
    """The plan of a rule, or of NO_GUIDANCE, with the lowest Frechet distance of as many as the sweep tries that cost
    at most `budget` of CFG.

    Omega, the active interval, and for sparse rules gammas and their shapes are suggested by Optuna. Schedules whose
    pictures show less of what was asked than without guidance are passed over: with a masked model the lowest distance
    of all belongs to oversaturated pictures.
    """
    try:
        import optuna
    except ImportError as error:
        raise ValueError("calibration needs the package optuna: pip install -r requirements-evaluate.txt") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    asked = sweep.search("unguided", UNGUIDED)["consistency"]
    trials = sweep.sizes.trials
    # every process asks a study of its own, with the same seed and the same answers
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0, n_startup_trials=max(trials // 3, 1)))
    found: dict[Plan, dict[str, Any]] = {}
    refused = 0
    while len(found) < trials and refused < REFUSED:
        trial = study.ask()
        plan = suggest(trial, rule, sweep.bench.spec.sparsity)
        if plan is None or relative_cost(sweep, plan) > budget or plan in found:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            refused += 1
            continue
        refused = 0
        row = found[plan] = sweep.search(rule, plan.schedule, PLAN, plan.cfg)
        trial.set_constraint("shows less than no guidance", asked - row["consistency"])
        study.tell(trial, row["frechet"])
    if not found:
        raise ValueError(f"no schedule costs at most {budget:g} of CFG with this route; raise --budget.")
    faithful = [plan for plan, row in found.items() if row["consistency"] >= asked]
    return min(faithful or found, key=lambda plan: found[plan]["frechet"])


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
    omega = Curve.constant(trial.suggest_int("omega", 11, 40) / 10)
    cfg = trial.suggest_int("cfg", 11, 40) / 10 if known.beside_cfg else 1.0
    if sparse:
        strong = SHAPES[trial.suggest_categorical("shape", list(SHAPES))](gamma_strong)
        # the paper's AG + SG grows denser in the weak branch
        shape = trial.suggest_categorical("shape_weak", ["constant", "falling"]) if known.auxiliary else "constant"
        weak = SHAPES[shape](gamma_weak)
    start = trial.suggest_categorical("start", [0.0, 0.2])
    end = trial.suggest_categorical("end", [0.8, 1.0])
    if known.contrasts_sparsity and gamma_strong >= gamma_weak:
        return None
    return Plan(Schedule(strong, weak, omega, rule, start=start, end=end), cfg)


def relative_cost(sweep: Sweep, plan: Plan) -> float:
    cost = step_cost(sweep.bench.spec, plan.schedule, sweep.sizes.steps, cfg=plan.cfg)
    return cost.total / cost.cfg
