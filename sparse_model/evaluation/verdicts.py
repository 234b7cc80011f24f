"""The paper's claims (arXiv 2601.01608) and this pack's own, each with its figures and a verdict by one rule.

A difference counts if it is more than two spreads, of which one is the standard deviation over the seeds, the larger of
the two sides'. A claim holds if every one of its differences counts, holds in part if some do and none counts the other
way, and does not hold otherwise. One seed has no spread: a difference from it is not measured, nor is its claim.
"""

import itertools
import math
from collections.abc import Callable, Iterable
from statistics import mean
from typing import Any, NamedTuple

from .measure import QUALITY
from .plots import constant_of, grouped
from .speed import SECONDS, SPEED, THRESHOLDS
from .sweep import spread, with_spread

Row = dict[str, Any]
COUNTS = 2.0  # spreads
BEST = 3  # of a map's cells, the best third is its good region
AS_FAST = 1.02  # times as long is still as fast: what seconds are measured to

HOLDS, IN_PART, FAILS, UNKNOWN = "holds", "holds in part", "does not hold", "not measured"


class Verdict(NamedTuple):
    """A claim, what was found, in words, and one of the four outcomes."""

    claim: str
    figures: str
    outcome: str


def verdicts(rows: list[Row]) -> list[Verdict]:
    """Every claim, of the rows of one results file."""
    return [
        Verdict(claim, *(found if (found := check(rows)) is not None else ("", UNKNOWN)))
        for claim, check in CLAIMS.items()
    ]


def judge(differences: Iterable[float]) -> str:
    """Differences in spreads, positive as claimed, NaN where there is no spread -> the outcome."""
    differences = list(differences)
    if any(map(math.isnan, differences)):
        return UNKNOWN
    if all(value > COUNTS for value in differences):
        return HOLDS
    if any(value > COUNTS for value in differences) and min(differences) >= -COUNTS:
        return IN_PART
    return FAILS


def apart(low: list[Row], high: list[Row], figure: str) -> float:
    """How many spreads `figure` is higher in the rows `high`; NaN if either are of one seed."""
    return in_spreads([row[figure] for row in low], [row[figure] for row in high])


def in_spreads(low: list[float], high: list[float]) -> float:
    if min(len(low), len(high)) < 2:
        return math.nan
    (a, error_a), (b, error_b) = spread(low), spread(high)
    return (b - a) / max(error_a, error_b, 1e-9)


def _shown(rows: list[Row], figure: str = "frechet") -> str:
    return with_spread([row[figure] for row in rows], digits=1 if figure == "frechet" else 3)


def _of(rows: list[Row], plan: str) -> dict[str, list[Row]]:
    return grouped(row for row in rows if row["plan"] == plan)


def _best(rows: list[Row], rule: str, at_most: float = 2.0) -> list[Row] | None:
    """The seeds of the best searched schedule of a rule that costs at most so much of CFG."""
    unguided = [group for name, group in _of(rows, "rules").items() if name.startswith("unguided")]
    groups = [
        group
        for group in _of(rows, "rules").values()
        if group[0]["schedule"]["rule"] == rule and group[0]["cost"] <= at_most and group not in unguided
    ]
    return min(groups, key=lambda group: mean(row["frechet"] for row in group), default=None)


def _cached(rows: list[Row], rule: str) -> list[Row] | None:
    """The seeds of EasyCache, at its lowest threshold, on the best schedule of a rule."""
    plan = SPEED if rule == "CFG" else "caching"
    return _of(rows, plan).get(f"{rule} with EasyCache, {THRESHOLDS[0]:g}")


def _better(good: list[Row] | None, bad: list[Row] | None) -> tuple[str, str] | None:
    """Whether the one is better than the other on every figure of quality."""
    if not good or not bad:
        return None
    differences = {figure: apart(good, bad, figure) for figure in QUALITY}
    words = ", ".join(f"{figure} {value:+.1f}" for figure, value in differences.items())
    figures = (
        f"{good[0]['method']}: {_shown(good)} at {good[0]['cost']:.2f} of CFG; {bad[0]['method']}: {_shown(bad)} at "
        f"{bad[0]['cost']:.2f}; in spreads: {words}"
    )
    return figures, judge(differences.values())


def naive(rows: list[Row]) -> tuple[str, str] | None:
    groups = sorted(_of(rows, "naive").values(), key=lambda group: constant_of(group[0], "gamma_strong"))
    if len(groups) < 2:
        return None
    outcome = judge(apart(groups[0], groups[-1], figure) for figure in QUALITY)
    falls = any(apart(a, b, figure) < -COUNTS for a, b in itertools.pairwise(groups) for figure in QUALITY)
    words = ", ".join(f"{constant_of(group[0], 'gamma_strong'):g}: {_shown(group)}" for group in groups)
    return f"Fr\u00e9chet distance at gamma {words}", IN_PART if falls and outcome == HOLDS else outcome


def moves(rows: list[Row]) -> tuple[str, str] | None:
    cells: dict[float, dict[int, list[Row]]] = {}
    for row in rows:
        if row["plan"] == "moves":
            cells.setdefault(constant_of(row, "omega"), {}).setdefault(row["seed"], []).append(row)
    if len(cells) < 2:
        return None
    low, high = min(cells), max(cells)
    places = {omega: [_good_region(of_seed) for of_seed in cells[omega].values()] for omega in (low, high)}
    ways = [[[place[axis] for place in places[omega]] for omega in (low, high)] for axis in (0, 1)]
    words = (
        f"gamma {name} {mean(a):.2f} at omega {low:g}, {mean(b):.2f} at {high:g}"
        for name, (a, b) in zip(("strong", "weak"), ways, strict=True)
    )
    return "middle of the best third of the map: " + "; ".join(words), judge(in_spreads(a, b) for a, b in ways)


def _good_region(rows: list[Row]) -> tuple[float, float]:
    """The middle (gamma strong, gamma weak) of the best cells of one map."""
    best = sorted(rows, key=lambda row: row["frechet"])[: max(len(rows) // BEST, 1)]
    return mean(constant_of(row, "gamma_strong") for row in best), mean(constant_of(row, "gamma_weak") for row in best)


def nearness(rows: list[Row]) -> tuple[str, str] | None:
    groups, differences, words = _of(rows, "nearness"), [], []
    for name, group in groups.items():
        if name.startswith("SG"):
            omega = name.rpartition(", ")[2]
            cfg = groups[f"CFG, {omega}"]
            differences.append(apart(group, cfg, "distance"))
            words.append(f"{name}: {_shown(group, 'distance')}, CFG {_shown(cfg, 'distance')}")
    return ("; ".join(words), judge(differences)) if words else None


def recall(rows: list[Row]) -> tuple[str, str] | None:
    sparse, cfg = _best(rows, "SG"), _best(rows, "CFG")
    if not sparse or not cfg:
        return None
    words = f"{sparse[0]['method']}: {_shown(sparse, 'recall')}; {cfg[0]['method']}: {_shown(cfg, 'recall')}"
    difference = apart(cfg, sparse, "recall")
    return words, judge([difference]) if math.isnan(difference) else HOLDS if difference > -COUNTS else FAILS


def at_equal_seconds(rival: str) -> Callable[[list[Row]], tuple[str, str] | None]:
    """Whether for every point of the rival's curve there is one of SG that takes no longer and is better."""

    def check(rows: list[Row]) -> tuple[str, str] | None:
        seconds = {row["key"]: row["seconds"] for row in rows if row["plan"] == SECONDS}
        groups = {name: group for name, group in _of(rows, SPEED).items() if group[0]["key"] in seconds}
        points = {name: (seconds[group[0]["key"]], group) for name, group in groups.items()}
        own = {name: point for name, point in points.items() if name.startswith("SG,")}
        differences, words = [], []
        for name, (time, group) in points.items():
            as_fast = {n: g for n, (t, g) in own.items() if t <= time * AS_FAST}
            if not name.startswith(f"{rival},") or not as_fast:
                continue
            best = min(as_fast, key=lambda n: mean(row["frechet"] for row in as_fast[n]))
            own_differences = [apart(as_fast[best], group, figure) for figure in QUALITY]
            differences += own_differences
            words.append(
                f"{name}: {_shown(group)} in {time:.3g} s, {best}: {_shown(as_fast[best])} in {own[best][0]:.3g} s"
            )
        return ("; ".join(words), judge(differences)) if words else None

    return check


def _recipe(name: str) -> Callable[[list[Row]], list[Row] | None]:
    return lambda rows: _of(rows, "recipes").get(name)


def _beats_the_recipe(rows: list[Row]) -> tuple[str, str] | None:
    """SG in any number of steps, at no more multiply-adds per picture."""
    paper = _recipe("SG_FLOPS")(rows)
    if not paper:
        return None
    searched = [*_of(rows, "rules").values(), *(g for name, g in _of(rows, SPEED).items() if name.startswith("SG,"))]
    within = [
        group
        for group in searched
        if group[0]["schedule"]["rule"] == "SG" and _work(group[0]) <= _work(paper[0]) * AS_FAST
    ]
    best = min(within, key=lambda group: mean(row["frechet"] for row in group), default=None)
    if found := _better(best, paper):
        return f"{found[0]}; billion multiply-adds: {_work(best[0]):.3g} and {_work(paper[0]):.3g}", found[1]
    return None


def _work(row: Row) -> float:
    """Multiply-adds of a picture, in billions."""
    return row["gmacs"] * row["steps"]


CLAIMS: dict[str, Callable[[list[Row]], tuple[str, str] | None]] = {
    "Sparsity without guidance hurts, steadily (fig. 4)": naive,
    "The good region of the map moves up and to the right with omega (figs. 6, 8)": moves,
    "At one omega SG stays nearer to the unguided sample than CFG (fig. 7)": nearness,
    "At its best SG keeps the recall that CFG has at its best (table 1)": recall,
    "SG_FLOPS is better than CFG, each at its best (table 2)": lambda rows: _better(
        _recipe("SG_FLOPS")(rows), _best(rows, "CFG")
    ),
    "AG + SG with the cosine is better than AG (table 2)": lambda rows: _better(
        _recipe("AG + SG, cosine")(rows), _recipe("AG")(rows)
    ),
    "AG + SG with the cosine is better than SG_FLOPS (table 2)": lambda rows: _better(
        _recipe("AG + SG, cosine")(rows), _recipe("SG_FLOPS")(rows)
    ),
    "Calibrated SG is better than SG_FLOPS at no more multiply-adds per picture": _beats_the_recipe,
    "Calibrated SG at no more than half of CFG's cost is better than CFG at its best": lambda rows: _better(
        _best(rows, "SG", 0.5), _best(rows, "CFG")
    ),
    "Calibrated SG is better than CFG after an equal search, whatever both cost": lambda rows: _better(
        _best(rows, "SG"), _best(rows, "CFG")
    ),
    "CFG + SG at no more than half of CFG's cost is better than CFG at its best": lambda rows: _better(
        _best(rows, "CFG + SG", 0.5), _best(rows, "CFG")
    ),
    "At equal seconds SG is better than CFG with fewer steps": at_equal_seconds("CFG"),
    "At equal seconds SG is better than no guidance with fewer steps": at_equal_seconds("no guidance"),
    "At equal seconds SG is better than CFG with EasyCache": at_equal_seconds("CFG with EasyCache"),
    "SG with EasyCache is better than CFG at its best": lambda rows: _better(_cached(rows, "SG"), _best(rows, "CFG")),
    "SG with EasyCache is better than CFG with EasyCache": lambda rows: _better(
        _cached(rows, "SG"), _cached(rows, "CFG")
    ),
}


def report(rows: list[Row]) -> str:
    """A Markdown table."""
    lines = ["| claim | verdict | figures |", "|---|---|---|"]
    lines += [f"| {claim} | **{outcome}** | {figures} |" for claim, figures, outcome in verdicts(rows)]
    return "\n".join(lines)
