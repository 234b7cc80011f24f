"""evidence: every table, curve and verdict of one model."""

import argparse
from pathlib import Path

from .measuring_options import add_bench, bench_of
from .numbers import whole


def add_parser(commands) -> argparse.ArgumentParser:
    from ..evaluation.evidence import PARTS
    from ..evaluation.metrics import NEIGHBOURS
    from ..evaluation.sweep import Sizes

    parser = commands.add_parser(
        "evidence",
        help="every table, curve and verdict of one model, on seen and on held-out labels",
        description="Searches settings for every rule, measures them on the labels of the training and on held-out "
        "ones, times them, and judges the claims. The same call again goes on where it stopped. Over many GPUs: "
        "accelerate launch -m sparse_model evidence ...; over many processes beside each other, on one GPU too: each "
        "with a --share, then a call without one.",
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; all if none is named")
    add_bench(parser)
    parser.add_argument("--out", type=Path, default=Path("evidence"), help="folder of what is found (%(default)s)")
    parser.add_argument(
        "--trials", type=whole(1), default=16, help="schedules to try for every rule and budget (%(default)s)"
    )
    parser.add_argument(
        "--search-samples", type=whole(NEIGHBOURS + 1), default=Sizes.search, help="pictures of a trial (%(default)s)"
    )
    parser.add_argument("--forecast", action="store_true", help="say how long a CPU will take for it, and stop")
    parser.add_argument(
        "--share",
        type=share,
        metavar="K/N",
        help="measure part K of N only, beside the others, into the same folder; a call without it times the methods "
        "and writes tables, plots and verdicts",
    )
    parser.set_defaults(held_out=False)
    return parser


def share(text: str) -> tuple[int, int]:
    """2/6 -> (2, 6); argparse.ArgumentTypeError unless 1 <= K <= N."""
    which, slash, of = text.partition("/")
    if not (slash and which.isdecimal() and of.isdecimal() and 1 <= int(which) <= int(of)):
        raise argparse.ArgumentTypeError(f"'{text}' is not a share; write K/N, such as 1/4.")
    return int(which), int(of)


def run(options: argparse.Namespace) -> None:
    from ..evaluation.evidence import PARTS, forecast, transfer
    from ..evaluation.plans import PLANS
    from ..evaluation.plots import write_plots
    from ..evaluation.results import Results
    from ..evaluation.speed import SECONDS
    from ..evaluation.sweep import Share, Sizes, Sweep
    from ..evaluation.verdicts import report

    parts = options.parts or list(PARTS)
    if unknown := [part for part in parts if part not in PARTS]:
        raise ValueError(f"there is no part '{unknown[0]}'; use {', '.join(PARTS)}.")
    parts = [part for part in PARTS if part in parts]
    sizes = Sizes(options.search_samples, options.samples, options.seeds, options.steps, options.trials)
    options.out.mkdir(parents=True, exist_ok=True)

    def sweep_of(name: str) -> Sweep:
        bench = bench_of(argparse.Namespace(**{**vars(options), "held_out": name == "held-out"}))
        bench.accelerator.wait_for_everyone()
        shared = Share(*options.share or (1, 1))
        if bench.accelerator.num_processes > 1 and not shared.whole:
            raise ValueError("--share is for calls of one process each; leave it out under accelerate launch.")
        return Sweep(bench, Results(options.out / f"{name}.jsonl", bench.digest), sizes, shared)

    both = not options.reference.is_dir()  # of a folder nothing is held out
    seen = sweep_of("seen")
    if options.forecast:
        if seen.bench.accelerator.device.type != "cpu":
            raise ValueError("--forecast counts processor time; on a GPU there is none to tell.")
        _say(forecast(seen, parts), both)
        return
    whole = seen.share.whole
    sweeps = {"seen": seen} | ({"held-out": sweep_of("held-out")} if both else {})
    for part in parts:
        if part == SECONDS and not whole:
            continue
        PLANS[part](seen)
        for sweep in list(sweeps.values())[1:]:
            transfer(sweep, seen.rows)
            if part == "moves":
                PLANS[part](sweep)
    if whole and seen.bench.accelerator.is_main_process:
        for name, sweep in sweeps.items():
            write_plots(sweep.rows, options.out / name)
            (options.out / name / "verdicts.md").write_text(report(sweep.rows) + "\n", encoding="utf-8")
            print(f"\n{name} labels\n{report(sweep.rows)}")


def _say(seconds: dict[str, tuple[float, float]], both: bool) -> None:
    print("processor time, from what a few pictures took:")
    for part, (seen, held_out) in {**seconds, "all": tuple(map(sum, zip(*seconds.values(), strict=True)))}.items():
        more = f", on held-out labels {held_out / 60:.0f} more" if both else ""
        print(f"  {part:9} {seen / 60:.0f} minutes{more}", flush=True)
