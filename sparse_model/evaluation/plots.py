"""Plots and tables of a results file, and pictures of every method that it compares."""

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import torch
from PIL import Image

from ..checkpoints.metadata import schedule_from_dict
from ..pictures.image import contact_sheet
from ..writing import whole_file
from .measure import FIGURES, Bench, Cell
from .speed import SECONDS, SPEED
from .sweep import spread, with_spread

Row = dict[str, Any]


def draw(rows: list[Row], folder: Path) -> list[Path]:
    """Every plot that the rows have cells for, as PNG files in `folder`; ValueError if there is none."""
    try:
        import matplotlib
    except ImportError as error:
        raise ValueError("plots need the package matplotlib: pip install -r requirements-evaluate.txt") from error
    matplotlib.use("Agg")
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for name, (plan, plot) in PLOTS.items():
        if any(row["plan"] == plan for row in rows):
            made.append(folder / f"{name}.png")
            figure = plot(rows)
            with whole_file(made[-1]) as temporary:
                figure.savefig(temporary, dpi=110, format="png")
    if not made:
        raise ValueError("the results have no cells that a plot is made of; run a plan such as compare first.")
    return made


def measured(row: Row) -> bool:
    """Whether a row says what was measured, and its figure: a file can hold others."""
    try:
        schedule_from_dict(row["schedule"])
        return isinstance(row["method"], str) and all(
            math.isfinite(row[name]) for name in ("frechet", "cost", "seed", "steps")
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        return False


def write_plots(rows: list[Row], folder: Path) -> list[Path]:
    """`draw` of the measured rows and the timed ones, and a table of every plan's cells as PLAN.md."""
    timed = [row for row in rows if row.get("plan") == SECONDS]
    rows = [row for row in rows if measured(row)]
    made = draw(rows + timed, folder)
    for plan in dict.fromkeys(row["plan"] for row in rows):
        made.append(folder / f"{plan}.md")
        with whole_file(made[-1]) as temporary:
            temporary.write_text(table(rows + timed, plan) + "\n", encoding="utf-8")
    return made


def picture_grid(bench: Bench, rows: list[Row], columns: int = 14) -> Image.Image:
    """The first samples of seed 0 under every compared method at its best omega: one row each, the same noises."""
    drawn = {}
    for method, group in grouped(row for row in rows if row["plan"] == "compare").items():
        cell = Cell(schedule_from_dict(group[0]["schedule"]), method, 0, columns, group[0]["steps"])
        title = f"{method}, omega {constant_of(group[0], 'omega'):g}: {group[0]['cost']:.2f} of CFG's cost"
        drawn[title] = bench.draw(cell, torch.arange(columns)).float().cpu()
    return contact_sheet(drawn, scale=max(1, 64 // bench.spec.config.input_size))


def constant_of(row: Row, curve: str) -> float:
    """The first value of one of a row's curves."""
    return row["schedule"][curve]["keyframes"][0][1]


def max_of(row: Row, curve: str) -> float:
    """The largest value of one of a row's curves."""
    return max(value for _, value in row["schedule"][curve]["keyframes"])


def grouped(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Rows of one method together, in order of appearance."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row["method"], []).append(row)
    return groups


def _page(width: float, height: float, columns: int = 1, **options: Any):
    """A figure of that size in inches, which nobody has to close, and its axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(1, columns, **options)


def _cost(plan: str, what: str) -> Callable[[list[Row]], Any]:
    """Frechet distance against multiply-adds per step, every method of a plan."""

    def plot(rows: list[Row]):
        figure, axes = _page(7.5, 4.6)
        for method, group in grouped(row for row in rows if row["plan"] == plan).items():
            distance, error = spread([row["frechet"] for row in group])
            point = axes.errorbar(group[0]["gmacs"], distance, yerr=error, fmt="o", capsize=3)
            axes.annotate(
                method,
                (group[0]["gmacs"], distance),
                (7, 3),
                textcoords="offset points",
                fontsize=8,
                color=point[0].get_color(),
            )
        axes.set_xlabel("GMACs per step")
        axes.set_ylabel("Fr\u00e9chet distance (lower is better)")
        axes.set_title(f"Quality against cost, {what} (mean and deviation over seeds)", fontsize=9)
        axes.margins(x=0.2)
        axes.grid(alpha=0.3)
        return figure

    return plot


class _Point(NamedTuple):
    """A method on the curve: milliseconds, a figure's mean and spread, and what its name says that varies."""

    x: float
    y: float
    error: float
    varies: str
    by_steps: bool


def _point(seconds: float, group: list[Row], figure: str) -> _Point:
    varies = group[0]["method"].rpartition(", ")[2]
    number = varies.removesuffix(" steps")
    return _Point(1000 * seconds, *spread([row[figure] for row in group]), number, number != varies)


def _limit(points: list[_Point]) -> float:
    """The height up to which points stand where they belong: a little above all that vary by their steps."""
    low = min(point.y for point in points)
    high = max((point.y for point in points if point.by_steps), default=max(point.y for point in points))
    return high + 0.1 * (high - low)


def _seconds(rows: list[Row]):
    """Frechet distances in both feature networks against milliseconds per picture: a curve for every kind of method
    that varies by its steps, dots for the others. What is far off stands at the upper edge, with its value."""
    seconds = {row["key"]: row["seconds"] for row in rows if row["plan"] == SECONDS}
    curves: dict[str, list[tuple[float, list[Row]]]] = {}
    for method, group in grouped(row for row in rows if row["plan"] == SPEED).items():
        if group[0]["key"] in seconds:
            curves.setdefault(method.rpartition(", ")[0], []).append((seconds[group[0]["key"]], group))
    figure, panels = _page(9, 4, columns=2)
    networks = {"frechet": "EfficientNet-Lite0", "frechet_lite2": "EfficientNet-Lite2"}
    for axes, (name, network) in zip(panels, networks.items(), strict=True):
        kinds = {kind: sorted(_point(x, group, name) for x, group in points) for kind, points in curves.items()}
        limit = _limit([point for points in kinds.values() for point in points]) if kinds else 0.0
        for kind, points in kinds.items():
            shown = [min(point.y, limit) for point in points]
            line = axes.errorbar(
                [point.x for point in points],
                shown,
                yerr=[point.error if point.y == y else 0 for point, y in zip(points, shown, strict=True)],
                fmt="o-" if points[0].by_steps else "o",  # between two settings of another kind lies nothing
                capsize=3,
                label=kind,
            )
            for point, y in zip(points, shown, strict=True):
                text, colour = point.varies, line[0].get_color()
                if point.y > y:
                    text += f": {point.y:.0f}"
                    axes.plot(point.x, y, "^", color=colour, markersize=9)
                axes.annotate(text, (point.x, y), (4, 4), textcoords="offset points", fontsize=7, color=colour)
        axes.set_xlabel("milliseconds per picture")
        axes.set_title(f"Fr\u00e9chet distance, {network}", fontsize=9)
        axes.grid(alpha=0.3)
        axes.margins(x=0.08)
    panels[0].set_ylabel("lower is better")
    if curves:
        labels = panels[0].get_legend_handles_labels()
        figure.legend(*labels, loc="outside lower center", ncols=len(curves), fontsize=8)
    return figure


def _maps(rows: list[Row]):
    """Frechet distance over (gamma_strong, gamma_weak), one panel per omega."""
    cells = {
        (constant_of(row, "omega"), constant_of(row, "gamma_strong"), constant_of(row, "gamma_weak")): row["frechet"]
        for row in rows
        if row["plan"] == "map"
    }
    omegas, strongs, weaks = (sorted({key[i] for key in cells}) for i in range(3))
    low, high = min(cells.values()), max(cells.values())
    figure, panels = _page(3.3 * len(omegas) + 1, 3.1, columns=len(omegas), squeeze=False)
    for axes, omega in zip(panels[0], omegas, strict=True):
        grid = [[cells.get((omega, strong, weak), float("nan")) for weak in weaks] for strong in strongs]
        image = axes.imshow(grid, origin="lower", vmin=low, vmax=high, cmap="viridis_r", aspect="auto")
        for i in range(len(strongs)):
            for j in range(len(weaks)):
                if grid[i][j] == grid[i][j]:
                    shade = "black" if grid[i][j] < (low + high) / 2 else "white"
                    axes.text(j, i, f"{grid[i][j]:.0f}", ha="center", va="center", fontsize=8, color=shade)
        axes.set_xticks(range(len(weaks)), [f"{value:g}" for value in weaks])
        axes.set_yticks(range(len(strongs)), [f"{value:g}" for value in strongs])
        axes.set_title(f"omega {omega:g}", fontsize=10)
        axes.set_xlabel("gamma weak")
    panels[0][0].set_ylabel("gamma strong")
    figure.colorbar(image, ax=panels[0].tolist(), label="Fr\u00e9chet distance")
    return figure


def _curve(plan: str, curve: str, label: str) -> Callable[[list[Row]], Any]:
    def plot(rows: list[Row]):
        figure, axes = _page(5, 3.4)
        groups = grouped(row for row in rows if row["plan"] == plan).values()
        points = sorted((constant_of(group[0], curve), *spread([row["frechet"] for row in group])) for group in groups)
        axes.errorbar(*zip(*((x, y) for x, y, _ in points), strict=True), yerr=[error for *_, error in points],
                      fmt="o-", capsize=3)  # fmt: skip
        axes.set_xlabel(label)
        axes.set_ylabel("Fr\u00e9chet distance")
        axes.grid(alpha=0.3)
        return figure

    return plot


PLOTS: dict[str, tuple[str, Callable[[list[Row]], Any]]] = {
    "quality-cost": ("compare", _cost("compare", "each method at its best omega")),
    "rules": ("rules", _cost("rules", "every rule after an equal search")),
    "quality-seconds": (SECONDS, _seconds),
    "maps": ("map", _maps),
    "naive": ("naive", _curve("naive", "gamma_strong", "sparsity rate gamma, no guidance")),
}


def _time(seconds: float | None) -> str:
    return "n/a" if seconds is None else f"{seconds:.3g}"


def table(rows: list[Row], plan: str) -> str:
    """A Markdown table of one plan's cells: mean and standard deviation over seeds; n/a for a figure that a row from
    before it was added lacks. Methods whose time was measured have a column for it."""
    others = FIGURES[1:]
    seconds = {row["key"]: row["seconds"] for row in rows if row["plan"] == SECONDS}
    timed = plan == SPEED and bool(seconds)
    lines = [
        f"| method | omega | Fr\u00e9chet | {' | '.join(others)} | GMACs | of CFG |" + " seconds |" * timed,
        "|" + (len(others) + 5 + timed) * "---|",
    ]
    for method, group in grouped(row for row in rows if row["plan"] == plan).items():
        distance = with_spread([row["frechet"] for row in group], 2)
        means = " | ".join(
            f"{mean(row[name] for row in group):.3f}" if all(name in row for row in group) else "n/a" for name in others
        )
        omega, first = max_of(group[0], "omega"), group[0]
        lines.append(
            f"| {method} | {omega:g} | {distance} | {means} | {first['gmacs']:.4f} | "
            f"{first['cost']:.2f} |" + (f" {_time(seconds.get(first['key']))} |" if timed else "")
        )
    return "\n".join(lines)
