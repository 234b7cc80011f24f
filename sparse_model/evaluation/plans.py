"""The plans of a sweep: which cells to measure, one after another, and which comparison they are for."""

import contextlib
import itertools
from collections.abc import Callable
from dataclasses import replace

from ..method.guidance import RULES
from ..method.schedule import PRESETS, Curve, Schedule, constant
from ..method.tokens import SELECTIONS
from .caching import EasyCache
from .calibrate import NO_GUIDANCE, OverBudget, best_plan
from .measure import UNGUIDED, Cell
from .speed import THRESHOLDS, seconds, speed
from .sweep import SEARCH_SEED, Sweep
from .variants import ORDERS, ByNorm, Ordered, Overshoot

MAP_OMEGAS = (1.5, 2.0, 3.0)
ROUTED_MAP = (0.0, 0.25, 0.5), (0.5, 0.75, 0.9, 1.0)  # gamma_strong, gamma_weak
MASKED_MAP = (0.0, 0.125, 0.25), (0.125, 0.25, 0.5, 0.75)  # the good region of a masked model is nearer to dense
PAPER = (0.5, 0.9)  # SG_FLOPS's
TOKENS_OMEGA = 2.0
RISING, UNTIL = 0.75, 0.8
NAIVE = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9)
CFG_SCALES = (1.125, 1.25, 1.5)
BUDGETS = (0.4, 0.5, 0.75, 1.0)  # of CFG's cost, that Sparse Guidance is calibrated for
MATCHED_SCALES = (1.5, 3.0, 2.0)
SEARCHED = (
    *((rule, 1.0) for rule in (NO_GUIDANCE, *RULES)),
    *(("SG", budget) for budget in BUDGETS[:-1]),
    ("CFG + SG", 0.5),
)
GAIN = 1.15  # of the noise that a step takes out
BY_NORM = {  # as the trainer does, and halfway to chance
    "smallest norm": ByNorm(1),
    "small norm or chance": ByNorm(0.5),
    "largest norm": ByNorm(1, largest=True),
    "large norm or chance": ByNorm(0.5, largest=True),
}


def naive(sweep: Sweep) -> None:
    """Dropping tokens without guidance (arXiv 2601.01608, fig. 4)."""
    for gamma in sweep.share.deal(NAIVE):
        sweep.final("naive", f"naive {gamma:g}", constant(gamma, 1, 1), sweep.sizes.search)


def maps(sweep: Sweep) -> None:
    """SG over (gamma_strong, gamma_weak) for several omega (figs. 6 and 8)."""
    for omega, (strong, weak) in itertools.product(MAP_OMEGAS, map_points(sweep)):
        sweep.search(f"SG ({strong:g}, {weak:g})", constant(strong, weak, omega), "map")


def map_points(sweep: Sweep) -> list[tuple[float, float]]:
    """The pairs (gamma_strong, gamma_weak) of the map."""
    strongs, weaks = ROUTED_MAP if sweep.bench.spec.sparsity.mask is None else MASKED_MAP
    return [(strong, weak) for strong, weak in itertools.product(strongs, weaks) if strong < weak]


def moves(sweep: Sweep) -> None:
    """The map at its lowest and its highest omega, from several noises: whether the good region moves (figs. 6, 8)."""
    seeds = range(SEARCH_SEED, SEARCH_SEED + sweep.sizes.seeds)
    for seed, omega in sweep.share.deal(itertools.product(seeds, (MAP_OMEGAS[0], MAP_OMEGAS[-1]))):
        for strong, weak in map_points(sweep):
            cell = Cell(constant(strong, weak, omega), f"SG ({strong:g}, {weak:g})", seed, sweep.sizes.search)
            sweep.cell("moves", replace(cell, steps=sweep.sizes.steps))


def nearness(sweep: Sweep) -> None:
    """How far CFG and SG move a sample at one omega (fig. 7): SG at the paper's rates, and at the best of the map."""
    for omega in sweep.share.deal(MAP_OMEGAS):
        found = {
            (strong, weak): sweep.search(f"SG ({strong:g}, {weak:g})", constant(strong, weak, omega), "map")
            for strong, weak in map_points(sweep)
        }
        best = min(found, key=lambda rates: found[rates]["frechet"])
        sweep.final("nearness", f"CFG, omega {omega:g}", constant(0, 0, omega, "CFG"), sweep.sizes.search)
        for rates in dict.fromkeys((best, PAPER)):
            name = f"SG ({rates[0]:g}, {rates[1]:g}), omega {omega:g}"
            sweep.final("nearness", name, constant(*rates, omega), sweep.sizes.search)


def recipes(sweep: Sweep) -> None:
    """What the paper did, each at its own best omega: SG_FLOPS, AG, and AG + SG with the cosine (table 2)."""
    found = {"SG_FLOPS": _sparse_guidance(*PAPER)}
    if sweep.bench.auxiliary is not None:
        found |= {"AG": lambda omega: constant(0, 0, omega, "AG"), "AG + SG, cosine": PRESETS["SG_FID"].with_scale}
    for method, family in sweep.share.deal(found.items()):
        omega, _ = sweep.best_omega(method, family)
        sweep.final("recipes", method, family(omega))


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
    """SG's pairs of gamma by name, from the map; `cfg` is the Frechet distance of CFG's best."""
    maps(sweep)
    rows = [row for row in sweep.rows if row["plan"] == "map"]
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
    ways = {selection: (selection, None) for selection in SELECTIONS}
    ways |= {name: ("exact", Ordered(name)) for name in ORDERS}
    ways |= {name: ("exact", variant) for name, variant in BY_NORM.items()}
    for way, (selection, variant) in ways.items():
        for name, schedule in (("naive 0.5", constant(0.5, 1, 1)), ("SG (0.5, 0.9)", constant(0.5, 0.9, TOKENS_OMEGA))):
            chosen = replace(schedule, selection=selection)
            sweep.final("tokens", f"{name}, {way}", chosen, sweep.sizes.search, variant)


def scales(sweep: Sweep) -> None:
    """SG beside CFG, in three branches with a scale each. Every CFG scale gets as many looks at SG's omega as a method
    of the comparison; the best is measured."""

    def family(omega: float) -> Schedule:
        return replace(constant(0, 1, omega, "SG beside CFG"), end=UNTIL)

    looked = []
    for cfg in CFG_SCALES:
        name = f"SG (0, 1) beside CFG at {cfg:g}, until {UNTIL:g}"
        omega, distance = sweep.best_omega(name, family, cfg=cfg)
        looked.append((distance, name, omega, cfg))
    _, name, omega, cfg = min(looked)
    sweep.final("scales", name, family(omega), cfg=cfg)


def match(sweep: Sweep) -> None:
    """CFG at several scales, and SG at the omega that moves pictures as far as CFG does at that scale."""
    families = {"SG (0, 0.9)": constant(0, 0.9, 2)}
    if sweep.bench.spec.schedule is not None:
        families["the checkpoint's own schedule"] = sweep.bench.spec.schedule
    for scale in MATCHED_SCALES:
        sweep.final("match", f"CFG at {scale:g}", constant(0, 0, scale, "CFG"))
        for name, schedule in families.items():
            sweep.final("match", f"{name}, as far as CFG at {scale:g}", sweep.bench.matched(schedule, scale))


def rules(sweep: Sweep) -> None:
    """Every rule, and no guidance, at the best of equally many schedules, suggested from the same ranges, at up to
    CFG's cost; SG within smaller budgets, and CFG + SG within half, where what the whole search tried counts too."""
    for rule, budget in sweep.share.deal(searched for searched in SEARCHED if _possible(sweep, searched[0])):
        with contextlib.suppress(OverBudget):  # a masked model has nothing for the smaller ones
            best, cfg = best_plan(sweep, rule, budget, 1.0)
            sweep.final("rules", f"{rule} {in_words(best, cfg)}", best, cfg=cfg)


def caching(sweep: Sweep) -> None:
    """EasyCache on the schedules found for SG and for CFG + SG, as the plan of speed measures it on CFG's."""
    for rule in sweep.share.deal(rule for rule in ("SG", "CFG + SG") if _possible(sweep, rule)):
        schedule = best_plan(sweep, rule, 1.0).schedule
        name = f"{rule} with EasyCache, {THRESHOLDS[0]:g}"
        sweep.final("caching", name, schedule, variant=EasyCache(THRESHOLDS[0]))


def overshoot(sweep: Sweep) -> None:
    """What EasyCache's guesses do besides leaving evaluations out: a step takes more noise out than D says. On no
    guidance and on the schedules found for CFG, SG and CFG + SG."""
    for rule in sweep.share.deal(rule for rule in (NO_GUIDANCE, "CFG", "SG", "CFG + SG") if _possible(sweep, rule)):
        schedule = UNGUIDED if rule == NO_GUIDANCE else best_plan(sweep, rule, 1.0).schedule
        sweep.final("overshoot", f"{rule}, {GAIN:g} times the noise", schedule, variant=Overshoot(GAIN))


def _possible(sweep: Sweep, rule: str) -> bool:
    """Whether the model has the tokens to leave out and the weaker checkpoint that a rule needs."""
    if rule == NO_GUIDANCE:
        return bool(sweep.bench.spec.sparsity)
    known = RULES[rule]
    fits = known.dense or bool(sweep.bench.spec.sparsity)
    return fits and (not known.auxiliary or sweep.bench.auxiliary is not None)


def in_words(schedule: Schedule, cfg: float = 1.0) -> str:
    """Sparsity rates, omega, active interval, another selection than exact, and CFG's scale beside it: (0 to 0.55,
    0.95), omega 2.8, until 0.8, structured, CFG 1.5."""
    curves = schedule.gamma_strong, schedule.gamma_weak, schedule.omega
    strong, weak, omega = (" to ".join(f"{value:g}" for _, value in curve.keyframes) for curve in curves)
    bounds = (f", from {schedule.start:g}" * (schedule.start > 0), f", until {schedule.end:g}" * (schedule.end < 1))
    kept = f", {schedule.selection}" * (schedule.selection != "exact")
    beside = f", CFG {cfg:g}" * (cfg != 1)
    return f"({strong}, {weak}), omega {omega}" + "".join(bounds) + kept + beside


PLANS: dict[str, Callable[[Sweep], None]] = {
    "compare": compare,
    "maps": maps,
    "naive": naive,
    "schedules": schedules,
    "tokens": tokens,
    "scales": scales,
    "match": match,
    "rules": rules,
    "speed": speed,
    "seconds": seconds,
    "caching": caching,
    "overshoot": overshoot,
    "moves": moves,
    "nearness": nearness,
    "recipes": recipes,
}
