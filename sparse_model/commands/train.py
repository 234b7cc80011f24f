"""train: a token-sparse model from pictures."""

import argparse
from dataclasses import replace
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
    from ..training.data import load
    from ..training.loop import train

    config = changed(options.config, options.set)
    pictures = load(options.data, config.network.input_size, **config.filters)
    config = replace(config, network=replace(config.network, num_classes=len(pictures.label_names)))
    if len(pictures) <= config.held_out:
        raise ValueError(
            f"'{options.data}' has {len(pictures)} pictures, of which {config.held_out} are held out; change that by "
            "--set held_out=8."
        )
    print(f"{len(pictures)} pictures, {len(pictures.label_names)} labels")
    number = train(config, pictures, options.out, minutes=options.minutes, every=options.every)
    if number is not None:
        raise Stopped(number)
