"""What evaluate, sweep and evidence share: the options of a measurement, and the bench that they describe."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ..checkpoints.bundled import DEFAULT, earlier
from .numbers import whole

if TYPE_CHECKING:
    from ..evaluation.measure import Bench


def add_common(parser: argparse.ArgumentParser) -> None:
    """The options of a command that measures one set of labels into one file."""
    add_bench(parser)
    parser.add_argument(
        "--held-out", action="store_true", help="the pictures that its training left out, and their labels, instead"
    )
    parser.add_argument(
        "--results", type=Path, default=Path("results.jsonl"), help="file of JSON lines, added to (%(default)s)"
    )


def add_bench(parser: argparse.ArgumentParser) -> None:
    """The options that describe a bench, and how much is measured on it."""
    parser.add_argument("--checkpoint", type=Path, default=DEFAULT, help="default: the bundled model")
    parser.add_argument(
        "--auxiliary",
        type=Path,
        help="weaker checkpoint for AG rules, of any size; default: CHECKPOINT-early, if there is one",
    )
    parser.add_argument(
        "--reference",
        type=Path,
        default=Path("icons-64.npz"),
        help="real pictures: a packed .npz (sparse_model.training.icons) or FOLDER/class/*.png (%(default)s); "
        "of more than 8,000, that many at random",
    )
    parser.add_argument(
        "--config", help="the training configuration whose pictures of an .npz count; default: CHECKPOINT's name"
    )
    parser.add_argument(
        "--precision", choices=["float32", "bfloat16"], default="float32", help="of the network (%(default)s)"
    )
    parser.add_argument("--batch", type=whole(1), default=100, help="pictures drawn at once (%(default)s)")
    parser.add_argument("--steps", type=whole(1), default=20, help="Euler steps (%(default)s)")
    parser.add_argument("--samples", type=whole(1), default=1000, help="pictures per seed (%(default)s)")
    parser.add_argument("--seeds", type=whole(1), default=3, help="runs with noises of their own (%(default)s)")


def bench_of(options: argparse.Namespace) -> "Bench":
    """The bench that the options describe; ValueError in one sentence if pictures, packages or samples are missing."""
    if not options.reference.exists():
        raise ValueError(
            f"--reference '{options.reference}' does not exist; name a folder of class subfolders, or make the packed "
            "pictures: python -m sparse_model.training.icons --size 64 --out icons-64.npz"
        )
    try:
        import accelerate  # noqa: F401
    except ImportError as error:
        raise ValueError("evaluation needs accelerate: pip install -r requirements-evaluate.txt") from error
    from ..evaluation.features import LITE0, LITE2, pretrained
    from ..evaluation.measure import Bench
    from ..evaluation.metrics import NEIGHBOURS
    from ..evaluation.reference import read_reference

    if options.samples <= NEIGHBOURS:
        raise ValueError(f"--samples {options.samples} are too few: the metrics need at least {NEIGHBOURS + 1}.")
    features = [pretrained(version) for version in (LITE0, LITE2)]
    config = options.config or options.checkpoint.stem
    return Bench(
        options.checkpoint,
        lambda spec: read_reference(options.reference, spec, config, features, options.held_out),
        features,
        auxiliary=options.auxiliary or earlier(options.checkpoint),
        precision=options.precision,
        batch=options.batch,
    )
