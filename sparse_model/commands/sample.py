"""sample: no guidance, CFG and Sparse Guidance side by side, from the same seeds."""

import argparse
from pathlib import Path

from ..checkpoints.bundled import DEFAULT, earlier
from .numbers import SEEDS, whole
from .schedule_options import add_schedule, schedule_of

PROMPTS = [
    "twemoji, fox",
    "noto, rocket",
    "fluent-emoji, red, apple",
    "twemoji, panda",
    "noto, owl",
    "icon-park, home",
    "twemoji, tulip",
]


def add_parser(commands) -> argparse.ArgumentParser:
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
    parser.add_argument("--steps", type=whole(1), help="Euler steps; default: what the checkpoint recommends")
    parser.add_argument(
        "--seed", type=whole(-SEEDS, SEEDS), default=0, help="seed of the first column; column i has seed + i"
    )
    parser.add_argument("--compile", action="store_true", help="torch.compile the network; pays off on many pictures")
    add_schedule(parser)
    return parser


def run(options: argparse.Namespace) -> None:
    from PIL import Image

    from ..writing import whole_file
    from .comparison import comparison_picture

    form = Image.registered_extensions().get(options.out.suffix.lower())
    if form not in Image.SAVE:
        raise ValueError(f"--out '{options.out}' is no picture that can be written; end it in .png.")
    if not options.out.parent.is_dir():
        raise ValueError(f"--out '{options.out}': the folder '{options.out.parent}' does not exist.")
    picture = comparison_picture(
        options.checkpoint,
        options.labels,
        schedule_of(options),
        cfg=options.cfg,
        steps=options.steps,
        seed=options.seed,
        auxiliary=options.auxiliary or earlier(options.checkpoint),
        compile=options.compile,
    )
    with whole_file(options.out) as temporary:
        picture.save(temporary, form)
    print(f"{options.out}: {picture.width} x {picture.height}")
