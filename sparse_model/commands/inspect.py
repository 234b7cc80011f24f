"""inspect: what a checkpoint is."""

import argparse
from pathlib import Path

from ..files import printable

SHOWN = 60  # labels


def add_parser(commands) -> argparse.ArgumentParser:
    parser = commands.add_parser("inspect", help="what a checkpoint is: architecture, route, sizes, classes")
    parser.add_argument("checkpoint", type=Path)
    return parser


def run(options: argparse.Namespace) -> None:
    from ..checkpoints.checkpoint import open_checkpoint

    with open_checkpoint(options.checkpoint) as checkpoint:
        for _ in checkpoint.each():  # checks every tensor and keeps none
            pass
    spec, weights = checkpoint.spec, checkpoint.parameters
    lines = [f"{options.checkpoint.name}: {spec.title}", f"  {spec.describe()}", f"  {weights / 1e6:.1f} M parameters"]
    if spec.settings:
        lines += ["  settings:", *(f"    {own}" for own in spec.settings)]
    if spec.note:
        lines.append(f"  {spec.note}.")
    if spec.labels:
        more = f", \u2026 ({len(spec.labels)})" if len(spec.labels) > SHOWN else ""
        lines.append("  labels: " + ", ".join(printable(label, 40) for label in spec.labels[:SHOWN]) + more)
    for line in lines:
        print(printable(line, 80 * SHOWN))
