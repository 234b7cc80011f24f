"""The engine of a sweep: measures cells, each once, into a results file that a killed sweep goes on from."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from statistics import mean, stdev
from typing import Any, TypeVar

from tqdm import tqdm

from ..method.schedule import Schedule
from .measure import FIGURES, Bench, Cell
from .results import Results
from .variants import Variant

OMEGAS = (1.25, 1.5, 2.0, 3.0)  # first look; two more follow, halfway to the neighbours of the best
SEARCH_SEED = 100  # no final cell has it, so no method is judged on the noise that its settings were chosen on


@dataclass(frozen=True)
class Sizes:
    """`search` samples for every cell that chooses settings or compares within one method, `final` samples where
    methods are compared; `seeds` seeds. A search over schedules looks at `trials` of them."""

    search: int = 500
    final: int = 1000
    seeds: int = 3
    steps: int = 20
    trials: int = 30


T = TypeVar("T")


@dataclass
class Share:
    """A part of the work: of the units that plans are made of, number `which`, `which` + `of`, and so on."""

    which: int = 1
    of: int = 1
    dealt: int = 0

    @property
    def whole(self) -> bool:
        return self.of == 1

    def deal(self, units: Iterable[T]) -> Iterator[T]:
        """Those of the units that are in the share; the next ones that are dealt follow on these."""
        for unit in list(units):
            self.dealt += 1
            if (self.dealt - self.which) % self.of == 0:
                yield unit


class Sweep:
    """Measures cells, each once: one that the results have is not measured again. Of the units of a plan, which do not
    depend on each other, those in its share."""

    def __init__(
        self,
        bench: Bench,
        results: Results,
        sizes: Sizes = Sizes(),
        share: Share | None = None,
        asked: dict[str, set[str]] | None = None,
    ):
        self.bench, self.results, self.sizes = bench, results, sizes
        self.share = share or Share()
        self.asked = {} if asked is None else asked  # the keys of every plan's cells so far

    def at(self, steps: int) -> "Sweep":
        """The same for pictures of so many steps."""
        return type(self)(self.bench, self.results, replace(self.sizes, steps=steps), self.share, self.asked)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The rows that count: of plans that were run, the cells that they asked for, and if all is in the share those
        of the others. What a search of another size chose stays in the file and out of the tables."""
        return [
            row
            for row in self.results.rows
            if row["key"] in self.asked.get(row["plan"], {row["key"]} if self.share.whole else ())
        ]

    def cell(self, plan: str, cell: Cell) -> dict[str, Any]:
        """The row of a cell, measured now or found; `plan` says what it is for."""
        key = self.bench.key(cell)
        self.asked.setdefault(plan, set()).add(key)
        row = _complete(self.results.find(key, plan))
        if row is None:
            row = _complete(self.results.find(key)) or self.bench.measure(cell)
            row = {**row, "plan": plan, "method": cell.method}
            writes = self.bench.accelerator.is_main_process
            row = self.results.add(row, write=writes, shared=not self.share.whole)
            if self.bench.accelerator.is_main_process:
                tqdm.write(describe(row))
        return row

    def search(self, method: str, schedule: Schedule, plan: str = "search", cfg: float = 1.0) -> dict[str, Any]:
        return self.cell(plan, Cell(schedule, method, SEARCH_SEED, self.sizes.search, self.sizes.steps, cfg))

    def final(
        self,
        plan: str,
        method: str,
        schedule: Schedule,
        samples: int | None = None,
        variant: Variant | None = None,
        cfg: float = 1.0,
    ) -> list[dict[str, Any]]:
        """One cell per seed, of `samples` (the final size if not given)."""
        first = Cell(schedule, method, 0, samples or self.sizes.final, self.sizes.steps, cfg, variant)
        cells = (replace(first, seed=seed) for seed in range(self.sizes.seeds))
        return [self.cell(plan, cell) for cell in cells]

    def best_omega(self, method: str, family: Callable[[float], Schedule], cfg: float = 1.0) -> tuple[float, float]:
        """(omega, Frechet distance) of the best of six: the same number of looks for every method."""

        def look(omega: float) -> float:
            return self.search(method, family(omega), cfg=cfg)["frechet"]

        found = {omega: look(omega) for omega in OMEGAS}
        best = min(found, key=found.get)
        place = OMEGAS.index(best)
        below = OMEGAS[place - 1] if place else 1.0
        above = OMEGAS[place + 1] if place + 1 < len(OMEGAS) else best + 1
        for omega in ((below + best) / 2, (best + above) / 2):
            found[omega] = look(omega)
        best = min(found, key=found.get)
        return best, found[best]


def spread(values: list[float]) -> tuple[float, float]:
    """(mean, standard deviation) over seeds; 0 for a single one."""
    return mean(values), stdev(values) if len(values) > 1 else 0.0


def with_spread(values: list[float], digits: int) -> str:
    """Mean and standard deviation; the mean alone of a single seed, which has no spread."""
    average, error = spread(values)
    return f"{average:.{digits}f}" + f" \u00b1 {error:.{digits}f}" * (len(values) > 1)


def _complete(row: dict[str, Any] | None) -> dict[str, Any] | None:
    """A row that has every figure; one from before a figure was added is measured again."""
    return row if row is not None and all(name in row for name in FIGURES) else None


def describe(row: dict[str, Any]) -> str:
    """One line for people."""
    omega = max(value for _, value in row["schedule"]["omega"]["keyframes"])
    figures = (f"{name} {row[name]:.3f}" for name in ("precision", "recall", "consistency", "distance", "cost"))
    return (
        f"{row['plan']:9} {row['method']:24} omega {omega:4.2f} seed {row['seed']:3} "
        f"Fr\u00e9chet {row['frechet']:7.2f} {' '.join(figures)}"
    )
