"""Calibration: the best schedule that a budget allows, written into the checkpoint that it was found for."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from ..checkpoints.checkpoint import read, save
from ..cost import step_cost
from ..method.guidance import RULES
from ..method.schedule import Curve, Schedule
from ..method.sparsity import Sparsity
from .measure import UNGUIDED
from .sweep import Sweep

PLAN = "calibrate"
TRIALS = 30
REFUSED = 200  # suggestions in a row over the budget before the search gives up

SHAPES = {  # a sparsity rate over progress, up to gamma
    "constant": Curve.constant,
    "rising": lambda gamma: Curve.cosine(0.0, gamma),
    "falling": lambda gamma: Curve.cosine(gamma, 0.0),
}


def calibrate(sweep: Sweep, checkpoint: Path, budget: float, trials: int) -> Schedule:
    """Searches SG's schedule as `best_schedule` does, and writes it into the checkpoint as its recommendation.

    ValueError for a checkpoint without a route, or a budget that no schedule meets.
    """
    if not sweep.bench.spec.sparsity:
        raise ValueError(f"{checkpoint.name}: has no token route in its metadata, so there is nothing to calibrate.")
    if checkpoint.suffix != ".safetensors":
        raise ValueError(f"{checkpoint.name}: the result is written into .safetensors only; convert it first.")
    best = best_schedule(sweep, "SG", budget, trials)
    if sweep.bench.accelerator.is_main_process:
        spec, state = read(checkpoint)
        save(state, replace(spec, schedule=best, steps=sweep.sizes.steps), checkpoint)
        print(f"{checkpoint}: {best} at {relative_cost(sweep, best):.3f} of CFG's cost")
    sweep.bench.accelerator.wait_for_everyone()
    return best


def best_schedule(sweep: Sweep, rule: str, budget: float, trials: int) -> Schedule:
    """The schedule of a rule with the lowest Fréchet distance of `trials` that cost at most `budget` of CFG.

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
    # every process asks a study of its own, with the same seed and the same answers
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0, n_startup_trials=max(trials // 3, 1)))
    found: dict[Schedule, dict[str, Any]] = {}
    refused = 0
    while len(found) < trials and refused < REFUSED:
        trial = study.ask()
        schedule = suggest(trial, rule, sweep.bench.spec.sparsity)
        if schedule is None or relative_cost(sweep, schedule) > budget or schedule in found:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            refused += 1
            continue
        refused = 0
        row = found[schedule] = sweep.search(rule, schedule, PLAN)
        trial.set_constraint("shows less than no guidance", asked - row["consistency"])
        study.tell(trial, row["frechet"])
    if not found:
        raise ValueError(f"no schedule costs at most {budget:g} of CFG with this route; raise --budget.")
    faithful = [schedule for schedule, row in found.items() if row["consistency"] >= asked]
    return min(faithful or found, key=lambda schedule: found[schedule]["frechet"])


def suggest(trial, rule: str, sparsity: Sparsity) -> Schedule | None:
    """A schedule of a rule from an Optuna trial; None where SG's strong branch would not be the denser one."""
    strong = weak = Curve.constant(0.0)
    known = RULES[rule]
    if sparse := not known.dense:
        masked = sparsity.mask is not None  # then little sparsity goes a long way (arXiv 2601.01608, fig. 6)
        high_weak, high_strong = (15, 10) if masked else (20, 15)  # in steps of 0.05
        low_weak = (2 if masked else 5) if known.contrasts_sparsity else 0
        gamma_weak = trial.suggest_int("gamma_weak", low_weak, high_weak) / 20
        gamma_strong = trial.suggest_int("gamma_strong", 0, high_strong) / 20
    omega = Curve.constant(trial.suggest_int("omega", 11, 40) / 10)
    if sparse:
        strong = SHAPES[trial.suggest_categorical("shape", list(SHAPES))](gamma_strong)
        # the paper's AG + SG grows denser in the weak branch
        shape = trial.suggest_categorical("shape_weak", ["constant", "falling"]) if known.auxiliary else "constant"
        weak = SHAPES[shape](gamma_weak)
    start = trial.suggest_categorical("start", [0.0, 0.2])
    end = trial.suggest_categorical("end", [0.8, 1.0])
    if known.contrasts_sparsity and gamma_strong >= gamma_weak:
        return None
    return Schedule(strong, weak, omega, rule, start=start, end=end)


def relative_cost(sweep: Sweep, schedule: Schedule) -> float:
    cost = step_cost(sweep.bench.spec, schedule, sweep.sizes.steps)
    return cost.total / cost.cfg
