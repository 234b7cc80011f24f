"""inspect: what a checkpoint is."""

import argparse
from pathlib import Path


def add_parser(commands) -> argparse.ArgumentParser:
    parser = commands.add_parser("inspect", help="what a checkpoint is: architecture, route, sizes, classes")
    parser.add_argument("checkpoint", type=Path)
    return parser


def run(options: argparse.Namespace) -> None:
    from ..checkpoints.checkpoint import read

    spec, state = read(options.checkpoint)
    weights = sum(value.numel() for value in state.values())
    print(f"{options.checkpoint.name}: {spec.title}\n  {spec.describe()}\n  {weights / 1e6:.1f} M parameters")
    if spec.note:
        print(f"  {spec.note}.")
    if spec.labels:
        more = f", … ({len(spec.labels)})" if len(spec.labels) > 60 else ""
        print("  labels: " + ", ".join(spec.labels[:60]) + more)
