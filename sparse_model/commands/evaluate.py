"""evaluate: the figures of one schedule."""

import argparse

from ..method.schedule import constant
from .measuring_options import add_common, bench_of
from .schedule_options import add_schedule, cfg_of, schedule_of

STOPPED = "what was measured is kept, and the same call goes on from there"


def add_parser(commands) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        "evaluate",
        help="measure a schedule: Fr\u00e9chet distance, precision, recall, class consistency, cost",
        description="Draws samples under one schedule (default: the checkpoint's own) and measures them against real "
        "pictures, a line per seed. Over many processes: accelerate launch -m sparse_model evaluate \u2026",
    )
    add_common(parser)
    add_schedule(parser)
    return parser


def run(options: argparse.Namespace) -> None:
    from ..evaluation.measure import UNGUIDED
    from ..evaluation.plans import in_words
    from ..evaluation.results import Results
    from ..evaluation.sweep import Sizes, Sweep

    given = schedule_of(options)
    bench = bench_of(options)
    schedule = given or bench.spec.schedule or constant(0.5, 0.9, 1.5)
    cfg = cfg_of(options.cfg, schedule)
    if schedule.sparse and not bench.spec.sparsity:
        raise ValueError(f"{options.checkpoint.name}: has no token route in its metadata, so nothing can be left out.")
    sizes = Sizes(final=options.samples, seeds=options.seeds, steps=options.steps)
    sweep = Sweep(bench, Results(options.results, bench.digest), sizes)
    bench.accelerator.wait_for_everyone()
    method = "unguided" if schedule == UNGUIDED else f"{schedule.rule} {in_words(schedule, cfg)}"
    sweep.final("evaluate", method, schedule, cfg=cfg)
