"""Sweeps: which cells to measure, one after another, into a results file that a killed sweep goes on from."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from tqdm import tqdm

from ..schedule import PRESETS, Curve, Schedule, constant
from ..tokens import COMPARED
from .measure import UNGUIDED, Bench, Cell
from .results import Results
from .variants import ByNorm, NullBranch, Variant

OMEGAS = (1.25, 1.5, 2.0, 3.0)  # first look; two more follow, halfway to the neighbours of the best
SEARCH_SEED = 100  # no final cell has it, so no method is judged on the noise that its settings were chosen on
MAP_OMEGAS = (1.5, 2.0, 3.0)
ROUTED_MAP = (0.0, 0.25, 0.5), (0.5, 0.75, 0.9, 1.0)  # gamma_strong, gamma_weak
MASKED_MAP = (0.0, 0.125, 0.25), (0.125, 0.25, 0.5, 0.75)  # the good region of a masked model is nearer to dense
TOKENS_OMEGA = 2.0
RISING, UNTIL = 0.75, 0.8
NAIVE = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9)
NULL_SCALES = (1.125, 1.25, 1.5)
BY_NORM = {  # as the trainer does, and halfway to chance
    "smallest norm": ByNorm(1),
    "small norm or chance": ByNorm(0.5),
    "largest norm": ByNorm(1, largest=True),
    "large norm or chance": ByNorm(0.5, largest=True),
}


@dataclass(frozen=True)
class Sizes:
    """`search` samples for every cell that chooses settings or compares within one method, `final` samples where
    methods are compared; `seeds` seeds."""

    search: int = 500
    final: int = 1000
    seeds: int = 3
    steps: int = 20


class Sweep:
    """Measures cells, each once: one that the results have is not measured again."""

    def __init__(self, bench: Bench, results: Results, sizes: Sizes = Sizes()):
        self.bench, self.results, self.sizes = bench, results, sizes

    def cell(self, plan: str, cell: Cell) -> dict[str, Any]:
        """The row of a cell, measured now or found; `plan` says what it is for."""
        key = self.bench.key(cell)
        row = self.results.find(key, plan)
        if row is None:
            row = self.results.find(key) or self.bench.measure(cell)
            row = {**row, "plan": plan, "method": cell.method}
            self.results.add(row, write=self.bench.accelerator.is_main_process)
            if self.bench.accelerator.is_main_process:
                tqdm.write(describe(row))
        return row

    def search(
        self, method: str, schedule: Schedule, plan: str = "search", variant: Variant | None = None
    ) -> dict[str, Any]:
        cell = Cell(schedule, method, SEARCH_SEED, self.sizes.search, self.sizes.steps, variant)
        return self.cell(plan, cell)

    def final(
        self, plan: str, method: str, schedule: Schedule, samples: int | None = None, variant: Variant | None = None
    ) -> list[dict[str, Any]]:
        """One cell per seed, of `samples` (the final size if not given)."""
        samples = samples or self.sizes.final
        cells = (Cell(schedule, method, seed, samples, self.sizes.steps, variant) for seed in range(self.sizes.seeds))
        return [self.cell(plan, cell) for cell in cells]

    def best_omega(
        self, method: str, family: Callable[[float], Schedule], variant: Variant | None = None
    ) -> tuple[float, float]:
        """(omega, Fréchet distance) of the best of six: the same number of looks for every method."""

        def look(omega: float) -> float:
            return self.search(method, family(omega), variant=variant)["frechet"]

        found = {omega: look(omega) for omega in OMEGAS}
        best = min(found, key=found.get)
        place = OMEGAS.index(best)
        below = OMEGAS[place - 1] if place else 1.0
        above = OMEGAS[place + 1] if place + 1 < len(OMEGAS) else best + 1
        for omega in ((below + best) / 2, (best + above) / 2):
            found[omega] = look(omega)
        best = min(found, key=found.get)
        return best, found[best]


def describe(row: dict[str, Any]) -> str:
    """One line for people."""
    omega = row["schedule"]["omega"]["keyframes"][0][1]
    figures = (f"{name} {row[name]:.3f}" for name in ("precision", "recall", "consistency", "distance", "cost"))
    return (
        f"{row['plan']:9} {row['method']:24} omega {omega:4.2f} seed {row['seed']:3} Fréchet {row['frechet']:7.2f} "
        + " ".join(figures)
    )


def naive(sweep: Sweep) -> None:
    """Dropping tokens without guidance (arXiv 2601.01608, fig. 4)."""
    for gamma in NAIVE:
        sweep.final("naive", f"naive {gamma:g}", constant(gamma, 1, 1), sweep.sizes.search)


def maps(sweep: Sweep) -> None:
    """SG over (gamma_strong, gamma_weak) for several omega (figs. 6 and 8)."""
    strongs, weaks = ROUTED_MAP if sweep.bench.spec.sparsity.mask is None else MASKED_MAP
    for omega, strong, weak in itertools.product(MAP_OMEGAS, strongs, weaks):
        if strong < weak:
            sweep.search(f"SG ({strong:g}, {weak:g})", constant(strong, weak, omega), "map")


def methods(sweep: Sweep) -> dict[str, Callable[[float], Schedule]]:
    """Every method of the comparison as a family of schedules over omega.

    SG's three pairs of gamma come from the map: the best, the best that costs no more than no guidance, and the
    cheapest that beats CFG's best.
    """
    found: dict[str, Callable[[float], Schedule]] = {"CFG": lambda omega: constant(0, 0, omega, "CFG")}
    if sweep.bench.spec.sparsity:
        found |= operating_points(sweep, sweep.best_omega("CFG", found["CFG"])[1])
        found["CFG + SG (0.2, 0.7)"] = lambda omega: constant(0.2, 0.7, omega, "CFG + SG")
    found[f"CFG, until {UNTIL:g}"] = until(found["CFG"])
    found["ICG"] = lambda omega: constant(0, 0, omega, "ICG")
    if sweep.bench.auxiliary is not None:
        found["AG"] = lambda omega: constant(0, 0, omega, "AG")
        if sweep.bench.spec.sparsity:
            found["AG + SG, cosine"] = PRESETS["SG_FID"].with_scale
    return found


def operating_points(sweep: Sweep, cfg: float) -> dict[str, Callable[[float], Schedule]]:
    """SG's pairs of gamma by name, from the map; `cfg` is the Fréchet distance of CFG's best."""
    maps(sweep)
    rows = [row for row in sweep.results.rows if row["plan"] == "map"]
    limits = {
        "best": rows,
        "equal cost": [row for row in rows if row["cost"] <= 0.5],  # one of CFG's two dense branches
    }
    points = {name: min(among, key=lambda row: row["frechet"]) for name, among in limits.items() if among}
    if better := [row for row in rows if row["frechet"] < cfg]:
        points["cheapest below CFG"] = min(better, key=lambda row: row["cost"])
    named: dict[tuple[float, float], list[str]] = {}
    for name, row in points.items():
        rates = tuple(row["schedule"][f"gamma_{branch}"]["keyframes"][0][1] for branch in ("strong", "weak"))
        named.setdefault(rates, []).append(name)
    return {
        f"SG ({strong:g}, {weak:g}): {', '.join(names)}": _sparse_guidance(strong, weak)
        for (strong, weak), names in named.items()
    }


def _sparse_guidance(strong: float, weak: float) -> Callable[[float], Schedule]:
    return lambda omega: constant(strong, weak, omega)


def compare(sweep: Sweep) -> None:
    """Each method at its own best omega, over several seeds (the counterpart of table 2)."""
    sweep.final("compare", "unguided", UNGUIDED)
    if sweep.bench.spec.schedule is not None:
        sweep.final("compare", "the checkpoint's own schedule", sweep.bench.spec.schedule)
    for method, family in methods(sweep).items():
        omega, _ = sweep.best_omega(method, family)
        sweep.final("compare", method, family(omega))


def until(family: Callable[[float], Schedule]) -> Callable[[float], Schedule]:
    """The same schedules, guiding only up to progress UNTIL."""
    return lambda omega: replace(family(omega), end=UNTIL)


def schedules(sweep: Sweep) -> None:
    """What schedules add to constant rates, one change at a time, each at its own best omega: an end of guidance
    (arXiv 2404.07724), a strong branch that grows sparser, both."""
    rising = Curve.cosine(0.0, RISING)

    def risen(omega: float) -> Schedule:
        return Schedule(rising, Curve.constant(1), Curve.constant(omega))

    plain = _sparse_guidance(0, 1)
    families = {
        f"CFG, until {UNTIL:g}": until(lambda omega: constant(0, 0, omega, "CFG")),
        f"SG (rising to {RISING:g}, 1), until {UNTIL:g}": until(risen),
        f"SG (0, 1), until {UNTIL:g}": until(plain),
        f"SG (rising to {RISING:g}, 1)": risen,
    }
    for method, family in families.items():
        omega, _ = sweep.best_omega(method, family)
        sweep.final("schedules", method, family(omega))
    sweep.final("schedules", f"no guidance, rising to {RISING:g}", risen(1))


def tokens(sweep: Sweep) -> None:
    """Which tokens are kept, at equal cost: without guidance at rate 0.5, and in SG_FLOPS at one omega."""
    ways = {selection: (selection, None) for selection in COMPARED}
    ways |= {name: ("exact", variant) for name, variant in BY_NORM.items()}
    for way, (selection, variant) in ways.items():
        for name, schedule in (("naive 0.5", constant(0.5, 1, 1)), ("SG (0.5, 0.9)", constant(0.5, 0.9, TOKENS_OMEGA))):
            chosen = replace(schedule, selection=selection)
            sweep.final("tokens", f"{name}, {way}", chosen, sweep.sizes.search, variant)


def scales(sweep: Sweep) -> None:
    """CFG beside SG, in three branches with a scale each: the null branch dense, or without the routed layers. Each of
    its scales gets as many looks at SG's omega as a method of the comparison; the best is measured."""
    family = until(_sparse_guidance(0, 1))
    for gamma in (0.0, 1.0):
        found = {}
        for scale in NULL_SCALES:
            name = f"SG (0, 1), and CFG (0, {gamma:g}) at {scale:g}, until {UNTIL:g}"
            omega, distance = sweep.best_omega(name, family, NullBranch(scale, gamma))
            found[distance] = name, family(omega), NullBranch(scale, gamma)
        name, schedule, variant = found[min(found)]
        sweep.final("scales", name, schedule, variant=variant)


PLANS: dict[str, Callable[[Sweep], None]] = {
    "compare": compare,
    "maps": maps,
    "naive": naive,
    "schedules": schedules,
    "tokens": tokens,
    "scales": scales,
}
