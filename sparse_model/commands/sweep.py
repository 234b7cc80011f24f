"""sweep: the figures of every guidance method, or the best schedule within a budget."""

import argparse
from pathlib import Path

from .measuring_options import add_common, bench_of
from .numbers import real, whole

STOPPED = "what was measured is kept, and the same call goes on from there"


def add_parser(commands) -> argparse.ArgumentParser:
    from ..evaluation.metrics import NEIGHBOURS
    from ..evaluation.plans import PLANS
    from ..evaluation.sweep import Sizes

    parser = commands.add_parser(
        "sweep",
        help="measure every guidance method, or search the best schedule within a budget",
        description="Measures the cells of plans into a results file; the same call again continues from there. "
        "With --budget it searches the best schedule instead and writes it into the checkpoint.",
    )
    parser.add_argument("plans", nargs="*", metavar="PLAN", help=f"{', '.join(PLANS)}; compare if none is named")
    parser.add_argument(
        "--budget",
        type=real(0, 10),
        nargs="+",
        help="calibrate: the highest cost of a step, as a fraction of CFG's; of several, the first becomes the file's "
        "recommendation, and those that win are offered by name",
    )
    parser.add_argument(
        "--trials",
        type=whole(1),
        default=Sizes.trials,
        help="schedules to try within a budget, and for every rule of `rules` (%(default)s)",
    )
    parser.add_argument(
        "--search-samples",
        type=whole(NEIGHBOURS + 1),
        default=Sizes.search,
        help="pictures per cell of a search (%(default)s)",
    )
    parser.add_argument("--plots", type=Path, help="a folder for plots and tables of the whole results file")
    add_common(parser)
    return parser


def run(options: argparse.Namespace) -> None:
    from ..evaluation.calibrate import calibrate
    from ..evaluation.plans import PLANS
    from ..evaluation.plots import measured, picture_grid, write_plots
    from ..evaluation.results import Results
    from ..evaluation.sweep import Sizes, Sweep
    from ..writing import whole_file

    plans = options.plans or ([] if options.budget is not None else ["compare"])
    if unknown := [plan for plan in plans if plan not in PLANS]:
        raise ValueError(f"there is no plan '{unknown[0]}'; use {', '.join(PLANS)}.")
    bench = bench_of(options)
    sizes = Sizes(options.search_samples, options.samples, options.seeds, options.steps, options.trials)
    sweep = Sweep(bench, Results(options.results, bench.digest), sizes)
    bench.accelerator.wait_for_everyone()
    for plan in plans:
        PLANS[plan](sweep)
    if options.budget is not None:
        calibrate(sweep, options.checkpoint, options.budget)
    if options.plots and bench.accelerator.is_main_process:
        for path in write_plots(sweep.rows, options.plots):
            print(path)
        rows = [row for row in sweep.rows if measured(row)]
        if any(row["plan"] == "compare" for row in rows):
            picture = picture_grid(bench, rows)
            with whole_file(options.plots / "pictures.png") as temporary:
                picture.save(temporary, "PNG")
