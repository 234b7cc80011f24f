"""Calibration: the best schedule that a budget allows, written into the checkpoint that it was found for."""

from dataclasses import replace
from pathlib import Path

from ..checkpoints import read, save
from ..cost import step_cost
from ..schedule import Curve, Schedule
from ..sparsity import Sparsity
from .sweep import Sweep

PLAN = "calibrate"
REFUSED = 200  # suggestions in a row over the budget before the search gives up

STRONG = {  # the strong branch's rate over progress, up to gamma
    "constant": Curve.constant,
    "rising": lambda gamma: Curve.cosine(0.0, gamma),
    "falling": lambda gamma: Curve.cosine(gamma, 0.0),
}


def calibrate(sweep: Sweep, checkpoint: Path, budget: float, trials: int) -> Schedule:
    """Searches SG's omega, gammas and schedule for the lowest Fréchet distance at a cost of at most `budget` of CFG.

    `trials` schedules are measured; the winner goes into the checkpoint's metadata as its recommendation. ValueError
    for a checkpoint without a route, or a budget that no schedule meets.
    """
    try:
        import optuna
    except ImportError as error:
        raise ValueError("calibration needs the package optuna: pip install -r requirements-evaluate.txt") from error
    if not sweep.bench.spec.sparsity:
        raise ValueError(f"{checkpoint.name}: has no token route in its metadata, so there is nothing to calibrate.")
    if checkpoint.suffix != ".safetensors":
        raise ValueError(f"{checkpoint.name}: the result is written into .safetensors only; convert it first.")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    # every process asks a study of its own, with the same seed and the same answers
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0, n_startup_trials=max(trials // 3, 1)))
    found: dict[Schedule, float] = {}
    refused = 0
    while len(found) < trials and refused < REFUSED:
        trial = study.ask()
        schedule = suggest(trial, sweep.bench.spec.sparsity)
        if schedule is None or relative_cost(sweep, schedule) > budget or schedule in found:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            refused += 1
            continue
        refused = 0
        found[schedule] = sweep.search("SG", schedule, PLAN)["frechet"]
        study.tell(trial, found[schedule])
    if not found:
        raise ValueError(f"no schedule costs at most {budget:g} of CFG with this route; raise --budget.")
    best = min(found, key=found.get)
    if sweep.bench.accelerator.is_main_process:
        spec, state = read(checkpoint)
        save(state, replace(spec, schedule=best, steps=sweep.sizes.steps), checkpoint)
        print(f"{checkpoint}: {best} at {relative_cost(sweep, best):.3f} of CFG's cost")
    sweep.bench.accelerator.wait_for_everyone()
    return best


def suggest(trial, sparsity: Sparsity) -> Schedule | None:
    """A schedule from an Optuna trial; None where the strong branch would not be the denser one."""
    masked = sparsity.mask is not None  # then little sparsity goes a long way (arXiv 2601.01608, fig. 6)
    weak = trial.suggest_int("gamma_weak", *((2, 15) if masked else (5, 20))) / 20  # steps of 0.05
    strong = trial.suggest_int("gamma_strong", 0, 10 if masked else 15) / 20
    omega = trial.suggest_int("omega", 11, 40) / 10
    shape = trial.suggest_categorical("shape", list(STRONG))
    start = trial.suggest_categorical("start", [0.0, 0.2])
    end = trial.suggest_categorical("end", [0.8, 1.0])
    if strong >= weak:
        return None
    return Schedule(STRONG[shape](strong), Curve.constant(weak), Curve.constant(omega), start=start, end=end)


def relative_cost(sweep: Sweep, schedule: Schedule) -> float:
    cost = step_cost(sweep.bench.spec, schedule, sweep.sizes.steps)
    return cost.total / cost.cfg
