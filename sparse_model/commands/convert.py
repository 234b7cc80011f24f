"""convert: any known checkpoint to safetensors that say what they are."""

import argparse
from dataclasses import replace
from pathlib import Path

from ..method.sparsity import Route, Sparsity
from .numbers import whole
from .schedule_options import add_schedule, schedule_of


def add_parser(commands) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        "convert",
        help="any known checkpoint to safetensors with metadata",
        description="Writes safetensors that carry the architecture, prediction kind, route and labels.",
    )
    parser.add_argument("source", type=Path, help=".pt, .pth, .ckpt, .bin or .safetensors")
    parser.add_argument("target", type=Path, help="the .safetensors file to write")
    parser.add_argument(
        "--dtype", choices=["float32", "float16", "bfloat16", "int8"],
        help="int8: matrices in 8 bits with a scale for each row; default: as in the source, 8 bits with scales as "
        "bfloat16",
    )  # fmt: skip
    parser.add_argument("--route", type=int, nargs=2, metavar=("START", "END"), help="the route it was trained with")
    parser.add_argument(
        "--ratio", type=float, default=0.5, help="sparsity rate of that route in training (%(default)s)"
    )
    parser.add_argument("--labels", type=Path, help="a text file of class names, one line for each class")
    parser.add_argument("--title", help="the model's name")
    parser.add_argument("--license", help="the weights' licence, as an SPDX identifier")
    parser.add_argument("--steps", type=whole(1), help="recommended number of steps")
    add_schedule(parser)
    return parser


def run(options: argparse.Namespace) -> None:
    import torch

    from ..checkpoints.checkpoint import read, save

    if options.target.suffix != ".safetensors":
        raise ValueError(f"'{options.target}' must end in .safetensors.")
    if not options.target.parent.is_dir():
        raise ValueError(f"'{options.target}': the folder '{options.target.parent}' does not exist.")
    spec, state = read(options.source)
    changes = {name: value for name in ("title", "license", "steps") if (value := getattr(options, name)) is not None}
    if options.route:
        route = Route(*options.route, options.ratio)
        route.layers(spec.config.depth)
        changes["sparsity"] = Sparsity((route,))
    if options.labels and spec.text is not None:
        raise ValueError(f"'{options.source}' reads text and knows no labels; run it without --labels.")
    if options.labels:
        changes["labels"] = names = tuple(lines_of(options.labels))
        if len(names) != spec.config.num_classes:
            raise ValueError(
                f"'{options.labels}' has {len(names)} names, but the model has {spec.config.num_classes} classes."
            )
    if schedule := schedule_of(options):
        changes["schedule"] = schedule
    save(state, replace(spec, **changes), options.target, getattr(torch, options.dtype) if options.dtype else None)
    print(f"{options.target}: {options.target.stat().st_size / 1e6:.1f} MB")


def lines_of(path: Path) -> list[str]:
    """The lines of a text file, without empty ones at its end; ValueError if it is something else."""
    try:
        return path.read_text(encoding="utf-8").rstrip("\n").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"'{path}' is no text of one name a line.") from error
