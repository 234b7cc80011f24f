"""cost: multiply-adds of a plan."""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from ..method.schedule import PRESETS
from ..method.sparsity import Route, Sparsity
from .numbers import whole
from .schedule_options import add_schedule, cfg_of, schedule_of


def add_parser(commands) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        "cost",
        help="multiply-adds per sampling step of an architecture under a plan",
        description="GMACs per sampling step: no guidance, CFG (both dense), the two branches of a guided step, what "
        "one pass of both shares, and their total.",
    )
    parser.add_argument(
        "--arch", default="SiT-XL/2", help="a published size: SiT-XL/2, DiT-B/4, TR-DiT-2.5B (%(default)s)"
    )
    parser.add_argument("--checkpoint", type=Path, help="a checkpoint instead of --arch")
    parser.add_argument("--start", dest="first", type=int, default=2, help="first routed layer (%(default)s)")
    parser.add_argument(
        "--end", dest="last", type=int, default=-4, help="last routed layer, itself routed (%(default)s)"
    )
    parser.add_argument(
        "--size", type=whole(1, 65536), help="side of the network's input, in its own pixels or latents"
    )
    parser.add_argument(
        "--steps", type=whole(1), default=40, help="steps that a schedule's mean is taken over (%(default)s)"
    )
    parser.add_argument("--attention", action="store_true", help="count the attention products too; the paper does not")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    add_schedule(parser)
    return parser


def run(options: argparse.Namespace) -> None:
    from ..checkpoints.checkpoint import open_checkpoint
    from ..checkpoints.spec import ModelSpec
    from ..cost import step_cost

    if options.checkpoint:
        with open_checkpoint(options.checkpoint) as checkpoint:
            spec = checkpoint.spec
    else:
        spec = ModelSpec.published(options.arch, Sparsity((Route(options.first, options.last),)))
    if options.size is not None and options.size % spec.config.patch_size:
        raise ValueError(f"--size {options.size} is no multiple of the network's patches of {spec.config.patch_size}.")
    schedule = schedule_of(options) or PRESETS["SG_FLOPS"]
    cfg = cfg_of(options.cfg, schedule)
    cost = step_cost(spec, schedule, options.steps, options.attention, options.size, cfg)
    figures = {name: round(value / 1e9, 4) for name, value in {**asdict(cost), "total": cost.total}.items()}
    if options.json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name:10} {value:10.2f} GMACs per step {value / figures['cfg']:8.2f} of CFG")
