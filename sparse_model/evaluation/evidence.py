"""All evidence of one model: every plan on the labels it was trained on, what was found there on held-out labels."""

import hashlib
import time
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch

from ..checkpoints.metadata import schedule_to_dict
from .measure import UNGUIDED, Bench, Cell
from .metrics import NEIGHBOURS
from .plans import PLANS
from .results import Results
from .seconds import PICTURES, ROUNDS, seconds_per_picture
from .speed import SECONDS, SPEED, cell_of
from .sweep import Sizes, Sweep

PARTS = ("rules", SPEED, SECONDS, "caching", "overshoot", "recipes", "nearness", "moves", "naive")
TRANSFERRED = ("rules", SPEED, "caching", "overshoot", "recipes", "nearness", "naive")
"""Finals, whose settings the seen labels have chosen."""


def transfer(sweep: Sweep, rows: Iterable[dict[str, Any]]) -> None:
    """Measures the final cells of another label set under the same names: settings are chosen there, judged here. The
    seconds of a method are the same for any labels."""
    rows = list(rows)
    keys = {}  # of the cells of SPEED there, and here
    for row in rows:
        if row["plan"] in TRANSFERRED:
            found = sweep.cell(row["plan"], cell_of(row))
            if row["plan"] == SPEED:
                keys[row["key"]] = found["key"]
    for row in rows:
        if row["plan"] == SECONDS and (key := keys.get(row["key"])) and not sweep.results.find(key, SECONDS):
            sweep.results.add({**row, "key": key}, write=sweep.bench.accelerator.is_main_process)


class Forecast(Sweep):
    """A sweep that measures nothing and counts what would be measured: plan -> processor seconds."""

    def __init__(self, bench: Bench, results: Results, sizes: Sizes, work: dict | None = None):
        super().__init__(bench, results, sizes)
        self.work = _Rates(bench).empty() if work is None else work

    def at(self, steps: int) -> "Forecast":
        return Forecast(self.bench, self.results, replace(self.sizes, steps=steps), self.work)

    def cell(self, plan: str, cell: Cell) -> dict[str, Any]:
        key, rates = self.bench.key(cell), self.work["rates"]
        cost = self.bench.cost(cell.schedule, cell.steps, cell.cfg)
        if key not in self.work["known"] and self.results.find(key) is None:
            reference = ("unguided", cell.seed, cell.samples, cell.steps)  # which `distance` is measured from
            if reference not in self.work["known"]:
                self.work["known"].add(reference)
                own = self.bench.cost(UNGUIDED, cell.steps)
                self._count(plan, cell.samples * rates.picture(own.total * cell.steps))
            if cell.schedule != UNGUIDED:
                self._count(plan, cell.samples * rates.picture(cost.total * cell.steps))
            self._count(plan, rates.cell)
        self.work["known"].add(key)
        # any figures will do: a search tries as many schedules whatever it finds
        chance = int(hashlib.sha256(key.encode()).hexdigest()[:8], 16) / 2**32
        return {
            "key": key, "plan": plan, **cell.describe(), "frechet": chance, "consistency": 1.0,
            "cost": cost.total / cost.cfg, "schedule": schedule_to_dict(cell.schedule),
        }  # fmt: skip

    def _count(self, plan: str, seconds: float) -> None:
        self.work["seconds"][plan] = self.work["seconds"].get(plan, 0.0) + seconds


class _Rates:
    """Processor seconds of a multiply-add, of a picture's features and of a cell's metrics, each measured once."""

    def __init__(self, bench: Bench):
        few = NEIGHBOURS + 1
        (drawn,) = seconds_per_picture(bench, [Cell(UNGUIDED, "", 0, PICTURES, 2)], rounds=2)
        self.product = drawn / (2 * bench.cost(UNGUIDED, 2).total)
        started = time.process_time()
        bench.measure(Cell(UNGUIDED, "", 0, few, 1))
        self.cell = time.process_time() - started
        pictures = bench.draw(Cell(UNGUIDED, "", 0, PICTURES, 1), torch.arange(PICTURES)).float()
        started = time.process_time()
        with torch.inference_mode():
            for network in bench.features:
                network(pictures)
        self.features = (time.process_time() - started) / PICTURES

    def picture(self, products: float) -> float:
        return products * self.product + self.features

    def empty(self) -> dict:
        return {"rates": self, "known": set(), "seconds": {}}


def forecast(seen: Sweep, parts: Iterable[str]) -> dict[str, tuple[float, float]]:
    """Part -> processor seconds (on seen labels, on held-out labels), measured small and multiplied."""
    counted, found = Forecast(seen.bench, seen.results, seen.sizes), {}
    for part in parts:
        before = dict(counted.work["seconds"])
        if part == SECONDS:
            found[part] = (_timing(counted), 0.0)
            continue
        PLANS[part](counted)
        spent = {plan: value - before.get(plan, 0.0) for plan, value in counted.work["seconds"].items()}
        again = sum(value for plan, value in spent.items() if plan in (*TRANSFERRED, "moves"))
        found[part] = (sum(spent.values()), again)
    return found


def _timing(counted: Forecast) -> float:
    """The rounds in which every method of the plan of speed is timed."""
    finals = counted.work["seconds"].get(SPEED, 0.0)
    return finals * PICTURES * ROUNDS / (counted.sizes.final * counted.sizes.seeds)
