"""The commands evaluate and sweep."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ..method.schedule import Schedule
from .comparison import DEFAULT, earlier

if TYPE_CHECKING:
    from ..evaluation.measure import Bench


def add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoint", type=Path, default=DEFAULT, help="default: the bundled model")
    parser.add_argument(
        "--auxiliary", type=Path, help="weaker checkpoint for AG rules; default: CHECKPOINT-early, if there is one"
    )
    parser.add_argument(
        "--reference",
        type=Path,
        default=Path("icons-32.npz"),
        help="real pictures: a packed .npz (sparse_model.training.icons) or FOLDER/class/*.png (%(default)s)",
    )
    parser.add_argument(
        "--config", help="the training configuration whose pictures of an .npz count; default: CHECKPOINT's name"
    )
    parser.add_argument(
        "--held-out", action="store_true", help="the pictures that its training left out, and their labels, instead"
    )
    parser.add_argument(
        "--results", type=Path, default=Path("results.jsonl"), help="file of JSON lines, added to (%(default)s)"
    )
    parser.add_argument(
        "--precision", choices=["float32", "bfloat16"], default="float32", help="of the network (%(default)s)"
    )
    parser.add_argument("--batch", type=int, default=100, help="pictures drawn at once (%(default)s)")
    parser.add_argument("--steps", type=int, default=20, help="Euler steps (%(default)s)")
    parser.add_argument("--samples", type=int, default=1000, help="pictures per seed (%(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="runs with noises of their own (%(default)s)")


def bench_of(options: argparse.Namespace) -> "Bench":
    for name in ("batch", "steps", "samples", "seeds"):
        if getattr(options, name) < 1:
            raise ValueError(f"--{name} {getattr(options, name)} is too few; at least 1.")
    if not options.reference.exists():
        raise ValueError(
            f"--reference '{options.reference}' does not exist; name a folder of class subfolders, or make the packed "
            "pictures: python -m sparse_model.training.icons --size 32 --out icons-32.npz --sets twemoji noto noto-v1 "
            "fluent-emoji-flat emojione"
        )
    try:
        import accelerate  # noqa: F401
    except ImportError as error:
        raise ValueError("evaluation needs accelerate: pip install -r requirements-evaluate.txt") from error
    from ..evaluation.features import pretrained
    from ..evaluation.measure import Bench
    from ..evaluation.metrics import NEIGHBOURS
    from ..evaluation.reference import read_reference

    if options.samples <= NEIGHBOURS:
        raise ValueError(f"--samples {options.samples} are too few: the metrics need at least {NEIGHBOURS + 1}.")
    features, config = pretrained(), options.config or options.checkpoint.stem
    return Bench(
        options.checkpoint,
        lambda spec: read_reference(options.reference, spec, config, features, options.held_out),
        features,
        auxiliary=options.auxiliary or earlier(options.checkpoint),
        precision=options.precision,
        batch=options.batch,
    )


def run_evaluate(options: argparse.Namespace, schedule: Schedule | None) -> None:
    from ..evaluation.measure import UNGUIDED
    from ..evaluation.plans import in_words
    from ..evaluation.results import Results
    from ..evaluation.sweep import Sizes, Sweep
    from ..method.schedule import constant

    bench = bench_of(options)
    schedule = schedule or bench.spec.schedule or constant(0.5, 0.9, 1.5)
    if schedule.sparse and not bench.spec.sparsity:
        raise ValueError(f"{options.checkpoint.name}: has no token route in its metadata, so nothing can be left out.")
    sizes = Sizes(final=options.samples, seeds=options.seeds, steps=options.steps)
    sweep = Sweep(bench, Results(options.results, bench.digest), sizes)
    bench.accelerator.wait_for_everyone()
    sweep.final("evaluate", "unguided" if schedule == UNGUIDED else f"{schedule.rule} {in_words(schedule)}", schedule)


def run_sweep(options: argparse.Namespace) -> None:
    from ..evaluation.calibrate import calibrate
    from ..evaluation.plans import PLANS
    from ..evaluation.plots import draw, picture_grid, table
    from ..evaluation.results import Results
    from ..evaluation.sweep import Sizes, Sweep

    plans = options.plans or ([] if options.budget is not None else ["compare"])
    if unknown := [plan for plan in plans if plan not in PLANS]:
        raise ValueError(f"there is no plan '{unknown[0]}'; use {', '.join(PLANS)}.")
    bench = bench_of(options)
    sizes = Sizes(options.search_samples, options.samples, options.seeds, options.steps)
    sweep = Sweep(bench, Results(options.results, bench.digest), sizes)
    bench.accelerator.wait_for_everyone()
    for plan in plans:
        PLANS[plan](sweep)
    if options.budget is not None:
        calibrate(sweep, options.checkpoint, options.budget, options.trials)
    if options.plots and bench.accelerator.is_main_process:
        for path in draw(sweep.results.rows, options.plots):
            print(path)
        if any(row["plan"] == "compare" for row in sweep.results.rows):
            picture_grid(bench, sweep.results.rows).save(options.plots / "pictures.png")
        for plan in dict.fromkeys(row["plan"] for row in sweep.results.rows):
            (options.plots / f"{plan}.md").write_text(table(sweep.results.rows, plan) + "\n", encoding="utf-8")
