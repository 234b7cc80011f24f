"""The plan of quality over seconds: what the time of a picture buys, with any number of steps."""

from dataclasses import replace

from ..checkpoints.metadata import schedule_from_dict
from .caching import EasyCache
from .calibrate import OverBudget, best_plan
from .measure import UNGUIDED, Cell
from .seconds import seconds_per_picture
from .sweep import Sweep
from .variants import Overshoot

STEPS = (8, 10, 14, 20)  # of Sparse Guidance and of no guidance
CFG_STEPS = (5, 7, 10, 20)  # of CFG, whose steps cost about twice as much
BUDGET = 0.5  # of Sparse Guidance: a step of it costs no more than a step without guidance
THRESHOLDS = (0.05, 0.1, 0.2)
SPEED, SECONDS = "speed", "seconds"


def speed(sweep: Sweep) -> None:
    """SG and CFG with a schedule searched for every number of steps, no guidance, and EasyCache on CFG's schedule of
    the most steps.

    A method's name is what it is, a comma, and what varies: its steps, or EasyCache's threshold.
    """
    for steps in sweep.share.deal(STEPS):
        at = sweep.at(steps)
        at.final(SPEED, f"no guidance, {steps} steps", UNGUIDED)
        if sweep.bench.spec.sparsity:
            try:
                schedule = best_plan(at, "SG", BUDGET).schedule
            except OverBudget:  # a masked model
                schedule = best_plan(at, "SG", 1.0).schedule
            at.final(SPEED, f"SG, {steps} steps", schedule)
    for steps in sweep.share.deal(CFG_STEPS):
        at = sweep.at(steps)
        schedule = best_plan(at, "CFG", 1.0).schedule
        at.final(SPEED, f"CFG, {steps} steps", schedule)
        for threshold in THRESHOLDS if steps == max(CFG_STEPS) else ():
            at.final(SPEED, f"CFG with EasyCache, {threshold:g}", schedule, variant=EasyCache(threshold))


def seconds(sweep: Sweep) -> None:
    """The seconds per picture of every method of the plan SPEED, in turns, unless all of them have a row."""
    rows: dict[str, dict] = {}
    for row in sweep.rows:
        if row["plan"] == SPEED:
            rows.setdefault(row["method"], row)  # of the first seed, whose key tables look for
    if all(sweep.results.find(row["key"], SECONDS) for row in rows.values()):
        return
    found = seconds_per_picture(sweep.bench, [cell_of(row) for row in rows.values()])
    for (method, row), value in zip(rows.items(), found, strict=True):
        timed = {"key": row["key"], "plan": SECONDS, "method": method, "seconds": value}
        sweep.results.add(timed, write=sweep.bench.accelerator.is_main_process)


def cell_of(row: dict) -> Cell:
    """The cell that a row was measured from; of the variants, those of the evidence only."""
    variant = row.get("variant")
    if variant is not None:
        kind = {kind.__name__: kind for kind in (EasyCache, Overshoot)}.get(variant["name"])
        if kind is None:
            raise ValueError(f"a cell with the variant {variant['name']} cannot be drawn again from its row.")
        variant = kind(**{name: value for name, value in variant.items() if name != "name"})
    schedule = schedule_from_dict(row["schedule"])
    cell = Cell(schedule, row["method"], row["seed"], row["samples"], row["steps"], row.get("cfg", 1.0))
    return replace(cell, variant=variant)
