"""The command line: python -m sparse_model sample | train | evaluate | sweep | convert | inspect | cost."""

import argparse
import json
import sys
from dataclasses import asdict, replace
from pathlib import Path

from .method.schedule import PRESETS, Curve, Schedule, constant
from .method.sparsity import Route, Sparsity

PROMPTS = [
    "twemoji, rocket",
    "noto, fox",
    "twemoji, pizza",
    "noto-v1, owl",
    "emojione, cat, face",
    "noto, octopus",
    "twemoji, tulip",
]


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence, without the usage text."""

    def error(self, message: str):
        self.exit(2, f"{self.prog}: {message}\n")


def main(arguments: list[str] | None = None) -> int:
    parser = Parser(prog="python -m sparse_model", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for add in (add_sample, add_train, add_evaluate, add_sweep, add_convert, add_inspect, add_cost):
        add(commands)
    options = parser.parse_args(arguments)
    try:
        options.run(options)
    except (ValueError, OSError) as error:
        print(f"{parser.prog} {options.command}: {error}", file=sys.stderr)
        return 2
    return 0


def add_schedule(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("guidance", "a preset, changed by whatever else is given")
    group.add_argument("--preset", choices=list(PRESETS), help="settings of the papers (arXiv 2601.01608, 2510.21986)")
    curve = "a number, 'cosine 0 0.6', 'linear A B', 'step A B [AT]', or keyframes '0:0.5, 0.3:0.2'"
    group.add_argument("--gamma-strong", metavar="CURVE", help=f"sparsity rate of the strong branch: {curve}")
    group.add_argument("--gamma-weak", metavar="CURVE", help="sparsity rate of the weak branch, likewise")
    group.add_argument("--omega", metavar="CURVE", help="guidance scale, likewise")
    group.add_argument("--rule", help="SG, CFG, CFG + SG, ICG, AG or AG + SG")


def schedule_of(options: argparse.Namespace) -> Schedule | None:
    """The schedule that the options describe; None if they say nothing."""
    from .method.guidance import RULES

    curves = {
        name: Curve.parse(text)
        for name in ("gamma_strong", "gamma_weak", "omega")
        if (text := getattr(options, name)) is not None
    }
    if options.rule is not None and options.rule not in RULES:
        raise ValueError(f"--rule '{options.rule}' is unknown; use one of {', '.join(RULES)}.")
    if not (curves or options.rule or options.preset):
        return None
    base = PRESETS.get(options.preset or "", constant(0.5, 0.9, 1.5))
    return replace(base, **curves, **({"rule": options.rule} if options.rule else {}))


def add_sample(commands) -> None:
    from .commands.comparison import DEFAULT

    parser = commands.add_parser(
        "sample",
        help="pictures from one checkpoint: no guidance, CFG and Sparse Guidance side by side",
        description="Draws rows of no guidance, CFG and Sparse Guidance from the same seeds, with their cost per step.",
    )
    parser.add_argument(
        "labels", nargs="*", default=PROMPTS, help="one picture per argument, such as 'twemoji, rocket'"
    )
    parser.add_argument("--checkpoint", type=Path, default=DEFAULT, help="default: the bundled model")
    parser.add_argument(
        "--auxiliary", type=Path, help="weaker checkpoint for AG rules; default: CHECKPOINT-early, if there is one"
    )
    parser.add_argument("--out", type=Path, default=Path("out.png"), help="where the picture goes (%(default)s)")
    parser.add_argument("--steps", type=int, help="Euler steps; default: what the checkpoint recommends")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first column; column i has seed + i")
    parser.add_argument("--compile", action="store_true", help="torch.compile the network; pays off on many pictures")
    add_schedule(parser)
    parser.set_defaults(run=run_sample)


def run_sample(options: argparse.Namespace) -> None:
    from .commands.comparison import tell

    if options.steps is not None and options.steps < 1:
        raise ValueError(f"--steps {options.steps} is too few; at least 1.")
    if not options.out.parent.is_dir():
        raise ValueError(f"--out '{options.out}': the folder '{options.out.parent}' does not exist.")
    picture = tell(
        options.checkpoint,
        options.labels,
        schedule_of(options),
        steps=options.steps,
        seed=options.seed,
        auxiliary=options.auxiliary,
        compile=options.compile,
    )
    picture.save(options.out)
    print(f"{options.out}: {picture.width} x {picture.height}")


def add_train(commands) -> None:
    parser = commands.add_parser(
        "train",
        help="train a token-sparse model on pictures",
        description="Trains, saving every so often; the same call again goes on where the last one stopped.",
    )
    parser.add_argument("data", type=Path, help="a packed .npz (sparse_model.training.icons) or FOLDER/class/*.png")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--config", default="icons-32", help="ready configuration (%(default)s)")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop and save after so long")
    parser.add_argument(
        "--every", type=int, default=500, help="steps between checkpoints and sample grids (%(default)s)"
    )
    parser.add_argument(
        "--set", nargs="*", default=[], metavar="KEY=VALUE", help="change the configuration: steps=9000"
    )
    parser.set_defaults(run=run_train)


def run_train(options: argparse.Namespace) -> None:
    from .training.config import changed
    from .training.data import load
    from .training.loop import train

    config = changed(options.config, options.set)
    pictures = load(options.data, config.network.input_size, **config.filters)
    config = replace(config, network=replace(config.network, num_classes=len(pictures.label_names)))
    print(f"{len(pictures)} pictures, {len(pictures.label_names)} labels")
    train(config, pictures, options.out, minutes=options.minutes, every=options.every)


def add_evaluate(commands) -> None:
    from .commands.evaluate import add_common, run_evaluate

    parser = commands.add_parser(
        "evaluate",
        help="measure a schedule: Fréchet distance, precision, recall, class consistency, cost",
        description="Draws samples under one schedule (default: the checkpoint's own) and measures them against real "
        "pictures, a line per seed. Over many processes: accelerate launch -m sparse_model evaluate …",
    )
    add_common(parser)
    add_schedule(parser)
    parser.set_defaults(run=lambda options: run_evaluate(options, schedule_of(options)))


def add_sweep(commands) -> None:
    from .commands.evaluate import add_common, run_sweep
    from .evaluation.calibrate import TRIALS
    from .evaluation.plans import PLANS
    from .evaluation.sweep import Sizes

    parser = commands.add_parser(
        "sweep",
        help="measure every guidance method, or search the best schedule within a budget",
        description="Measures the cells of plans into a results file; the same call again goes on where it stopped. "
        "With --budget it searches the best schedule instead and writes it into the checkpoint.",
    )
    parser.add_argument("plans", nargs="*", metavar="PLAN", help=f"{', '.join(PLANS)}; compare if none is named")
    parser.add_argument("--budget", type=float, help="calibrate: the highest cost of a step, as a fraction of CFG's")
    parser.add_argument("--trials", type=int, default=TRIALS, help="schedules to try within the budget (%(default)s)")
    parser.add_argument(
        "--search-samples", type=int, default=Sizes.search, help="pictures per cell of a search (%(default)s)"
    )
    parser.add_argument("--plots", type=Path, help="a folder for plots and tables of the whole results file")
    add_common(parser)
    parser.set_defaults(run=run_sweep)


def add_convert(commands) -> None:
    parser = commands.add_parser(
        "convert",
        help="any known checkpoint to safetensors with metadata",
        description="Writes safetensors that carry the architecture, prediction kind, route and labels.",
    )
    parser.add_argument("source", type=Path, help=".pt, .pth, .ckpt, .bin or .safetensors")
    parser.add_argument("target", type=Path, help="the .safetensors file to write")
    parser.add_argument("--dtype", choices=["float32", "float16", "bfloat16"], help="default: as in the source")
    parser.add_argument("--route", type=int, nargs=2, metavar=("START", "END"), help="the route it was trained with")
    parser.add_argument(
        "--ratio", type=float, default=0.5, help="sparsity rate of that route in training (%(default)s)"
    )
    parser.add_argument("--labels", type=Path, help="a text file with one class name per line")
    parser.add_argument("--title", help="the model's name")
    parser.add_argument("--license", help="the weights' licence, as an SPDX identifier")
    parser.add_argument("--steps", type=int, help="recommended number of steps")
    add_schedule(parser)
    parser.set_defaults(run=run_convert)


def run_convert(options: argparse.Namespace) -> None:
    import torch

    from .checkpoints.checkpoint import read, save

    if options.target.suffix != ".safetensors":
        raise ValueError(f"'{options.target}' must end in .safetensors.")
    spec, state = read(options.source)
    changes = {name: value for name in ("title", "license", "steps") if (value := getattr(options, name)) is not None}
    if options.route:
        route = Route(*options.route, options.ratio)
        route.layers(spec.config.depth)
        changes["sparsity"] = Sparsity((route,))
    if options.labels and spec.text is not None:
        raise ValueError(f"'{options.source}' reads text and knows no labels; leave --labels out.")
    if options.labels:
        changes["labels"] = tuple(options.labels.read_text(encoding="utf-8").split("\n")[: spec.config.num_classes])
        if len(changes["labels"]) != spec.config.num_classes:
            raise ValueError(f"'{options.labels}' has fewer names than the model's {spec.config.num_classes} classes.")
    if schedule := schedule_of(options):
        changes["schedule"] = schedule
    save(state, replace(spec, **changes), options.target, getattr(torch, options.dtype) if options.dtype else None)
    print(f"{options.target}: {options.target.stat().st_size / 1e6:.1f} MB")


def add_inspect(commands) -> None:
    parser = commands.add_parser("inspect", help="what a checkpoint is: architecture, route, sizes, classes")
    parser.add_argument("checkpoint", type=Path)
    parser.set_defaults(run=run_inspect)


def run_inspect(options: argparse.Namespace) -> None:
    from .checkpoints.checkpoint import read

    spec, state = read(options.checkpoint)
    weights = sum(value.numel() for value in state.values())
    print(f"{options.checkpoint.name}: {spec.title}\n  {spec.describe()}\n  {weights / 1e6:.1f} M parameters")
    if spec.note:
        print(f"  {spec.note}.")
    if spec.labels:
        more = f", … ({len(spec.labels)})" if len(spec.labels) > 60 else ""
        print("  labels: " + ", ".join(spec.labels[:60]) + more)


def add_cost(commands) -> None:
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
    parser.add_argument("--start", type=int, default=2, help="first routed layer (%(default)s)")
    parser.add_argument("--end", type=int, default=-4, help="last routed layer, itself routed (%(default)s)")
    parser.add_argument("--size", type=int, help="side of the network's input, in its own pixels or latents")
    parser.add_argument(
        "--steps", type=int, default=40, help="steps that a schedule's mean is taken over (%(default)s)"
    )
    parser.add_argument("--attention", action="store_true", help="count the attention products too; the paper does not")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    add_schedule(parser)
    parser.set_defaults(run=run_cost)


def run_cost(options: argparse.Namespace) -> None:
    from .checkpoints.checkpoint import read
    from .checkpoints.spec import ModelSpec
    from .cost import step_cost

    if options.checkpoint:
        spec, _ = read(options.checkpoint)
    else:
        spec = ModelSpec.published(options.arch, Sparsity((Route(options.start, options.end),)))
    if options.steps < 1:
        raise ValueError(f"--steps {options.steps} is too few; at least 1.")
    schedule = schedule_of(options) or PRESETS["SG_FLOPS"]
    cost = step_cost(spec, schedule, options.steps, options.attention, options.size)
    figures = {name: round(value / 1e9, 4) for name, value in {**asdict(cost), "total": cost.total}.items()}
    if options.json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name:10} {value:10.2f} GMACs per step {value / figures['cfg']:8.2f} of CFG")


if __name__ == "__main__":
    sys.exit(main())
