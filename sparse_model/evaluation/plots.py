"""Plots and tables of a results file, and pictures of every method that it compares."""

from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from PIL import Image

from ..checkpoints.metadata import schedule_from_dict
from ..pictures.image import contact_sheet
from .measure import FIGURES, Bench, Cell

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
            figure.savefig(made[-1], dpi=110)
    if not made:
        raise ValueError("the results have no cells that a plot is made of; run a plan such as compare first.")
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


def grouped(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Rows of one method together, in order of appearance."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row["method"], []).append(row)
    return groups


def spread(values: list[float]) -> tuple[float, float]:
    """(mean, standard deviation) over seeds; 0 for a single one."""
    return mean(values), stdev(values) if len(values) > 1 else 0.0


def _cost(rows: list[Row]):
    """Frechet distance against multiply-adds per step, every method at its own best omega."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7.5, 4.6), layout="constrained")
    for method, group in grouped(row for row in rows if row["plan"] == "compare").items():
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
    axes.set_title("Quality against cost, each method at its best omega (mean and deviation over seeds)", fontsize=9)
    axes.margins(x=0.2)
    axes.grid(alpha=0.3)
    return figure


def _maps(rows: list[Row]):
    """Frechet distance over (gamma_strong, gamma_weak), one panel per omega."""
    from matplotlib import pyplot

    cells = {
        (constant_of(row, "omega"), constant_of(row, "gamma_strong"), constant_of(row, "gamma_weak")): row["frechet"]
        for row in rows
        if row["plan"] == "map"
    }
    omegas, strongs, weaks = (sorted({key[i] for key in cells}) for i in range(3))
    low, high = min(cells.values()), max(cells.values())
    figure, panels = pyplot.subplots(
        1, len(omegas), figsize=(3.3 * len(omegas) + 1, 3.1), squeeze=False, layout="constrained"
    )
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
        from matplotlib import pyplot

        figure, axes = pyplot.subplots(figsize=(5, 3.4), layout="constrained")
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
    "quality-cost": ("compare", _cost),
    "maps": ("map", _maps),
    "naive": ("naive", _curve("naive", "gamma_strong", "sparsity rate gamma, no guidance")),
}


def table(rows: list[Row], plan: str) -> str:
    """A Markdown table of one plan's cells: mean and standard deviation over seeds; n/a for a figure that a row from
    before it was added lacks."""
    others = FIGURES[1:]
    lines = [
        f"| method | omega | Fr\u00e9chet | {' | '.join(others)} | GMACs | of CFG |",
        "|" + (len(others) + 5) * "---|",
    ]
    for method, group in grouped(row for row in rows if row["plan"] == plan).items():
        distance, error = spread([row["frechet"] for row in group])
        means = " | ".join(
            f"{mean(row[name] for row in group):.3f}" if all(name in row for row in group) else "n/a" for name in others
        )
        omega, first = constant_of(group[0], "omega"), group[0]
        lines.append(
            f"| {method} | {omega:g} | {distance:.2f} \u00b1 {error:.2f} | {means} | {first['gmacs']:.4f} | "
            f"{first['cost']:.2f} |"
        )
    return "\n".join(lines)
