"""What was aimed at on one H100 or H200, reached or not, from the results beside one another in a folder.

python benchmarks/targets.py FOLDER
"""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Row = dict[str, Any]


def rows_of(folder: Path, *names: str) -> Iterator[Row]:
    for name in names:
        path = folder / f"{name}.json"
        if path.is_file():
            yield from json.loads(path.read_text())["rows"]


def best(rows: Iterator[Row], model: str, batch: int, figure: Callable[[Row], float]) -> float | None:
    """The highest figure of a model at a batch, among all ways it was run in; None if it was not measured."""
    fitting = (row for row in rows if row.get("model") == model and row.get("batch") == batch and "failed" not in row)
    return max((figure(row) for row in fitting), default=None)


def speeds(folder: Path) -> Iterator[tuple[str, float | None, float, bool]]:
    """(what, measured, aimed at, whether more is better)."""
    wanted = (("TR-DiT-2.5B", 1, 1.0), ("TR-DiT-2.5B", 8, 1.5))
    for model, batch, aim in wanted:
        found = rows_of(folder, "steps_trdit", "modes_trdit")
        measured = best(found, model, batch, lambda row: row["pictures per second"]["SG"])
        yield f"{model}, batch {batch}: pictures per second", measured, aim, True
        found = rows_of(folder, "steps_trdit", "modes_trdit")
        yield f"{model}, batch {batch}: times CFG", best(found, model, batch, _faster), 1.6, True
    found = rows_of(folder, "steps_xl", "modes_xl")
    yield "SiT-XL/2, batch 64: times CFG", best(found, "SiT-XL/2", 64, _faster), 2.2, True


def _faster(row: Row) -> float:
    return row["times faster than CFG"]


def overheads(folder: Path) -> Iterator[tuple[str, float | None, float, bool]]:
    rows = [row for row in rows_of(folder, "overhead") if row["plan"] == "SG"]
    yield "own ms per step", max((row["own ms per step"] for row in rows), default=None), 0.3, False
    waits = [row["steps that wait"] for row in rows if row["steps that wait"] is not None]
    waiting = [sum(step != "0" for step in steps) for steps in waits]
    yield "steps behind the first that wait for the GPU", max(waiting, default=None), 0, False


def main() -> None:
    folder = Path(sys.argv[1])
    for what, measured, aim, more in (*speeds(folder), *overheads(folder)):
        if measured is None:
            verdict = "not measured"
        else:
            verdict = "reached" if (measured >= aim if more else measured <= aim) else "NOT reached"
        shown = "-" if measured is None else f"{measured:.3f}"
        print(f"{what:52} {shown:>8}   aim {'>=' if more else '<='} {aim:<4g} {verdict}")


if __name__ == "__main__":
    main()
