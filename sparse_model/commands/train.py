"""train: a token-sparse model from pictures."""

import argparse
from pathlib import Path

from .numbers import real, whole
from .stopping import Stopped

STOPPED = "the same call goes on from the last state that was saved"


def add_parser(commands) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        "train",
        help="train a token-sparse model on pictures",
        description="Trains, saving every so often; the same call again continues the run.",
    )
    parser.add_argument("data", type=Path, help="a packed .npz (sparse_model.training.icons) or FOLDER/class/*.png")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument(
        "--config", default="icons-64", help="ready configuration (%(default)s, the bundled model's: for a GPU)"
    )
    parser.add_argument("--minutes", type=real(0), default=float("inf"), help="stop and save after so long")
    parser.add_argument(
        "--every", type=whole(1), default=500, help="steps between checkpoints and sample grids (%(default)s)"
    )
    parser.add_argument(
        "--set", nargs="*", default=[], metavar="KEY=VALUE", help="change the configuration: steps=9000"
    )
    return parser


def run(options: argparse.Namespace) -> None:
    from ..training.config import changed
    from ..training.data import load_fitting
    from ..training.loop import train

    config, pictures = load_fitting(options.data, changed(options.config, options.set))
    print(f"{len(pictures)} pictures, {len(pictures.label_names)} labels")
    number = train(config, pictures, options.out, minutes=options.minutes, every=options.every)
    if number is not None:
        raise Stopped(number)
