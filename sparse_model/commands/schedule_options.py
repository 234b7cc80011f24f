"""The options that describe a schedule."""

import argparse
from dataclasses import replace

from ..method.guidance import RULES
from ..method.schedule import PRESETS, Curve, Schedule, constant
from ..method.tokens import SELECTIONS
from .numbers import real


def add_schedule(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("guidance", "a preset, changed by whatever else is given")
    group.add_argument("--preset", choices=list(PRESETS), help="settings of the papers (arXiv 2601.01608, 2510.21986)")
    curve = "a number, 'cosine 0 0.6', 'linear A B', 'step A B [AT]', or keyframes '0:0.5, 0.3:0.2'"
    group.add_argument("--gamma-strong", metavar="CURVE", help=f"sparsity rate of the strong branch: {curve}")
    group.add_argument("--gamma-weak", metavar="CURVE", help="sparsity rate of the weak branch, likewise")
    group.add_argument("--omega", metavar="CURVE", help="guidance scale, likewise")
    group.add_argument("--rule", help=", ".join(RULES))
    group.add_argument("--cfg", type=real(0), help="CFG's own scale under the rule SG beside CFG (1: no CFG)")
    group.add_argument("--from", dest="start", type=real(0, 1), help="progress at which guidance begins, from 0 to 1")
    group.add_argument("--until", dest="end", type=real(0, 1), help="progress at which it ends, likewise")
    group.add_argument("--selection", choices=SELECTIONS, help="which tokens are kept (exact)")


def schedule_of(options: argparse.Namespace) -> Schedule | None:
    """The schedule that the options describe; None if they say nothing."""
    curves = {
        name: Curve.parse(text)
        for name in ("gamma_strong", "gamma_weak", "omega")
        if (text := getattr(options, name)) is not None
    }
    if options.rule is not None and options.rule not in RULES:
        raise ValueError(f"--rule '{options.rule}' is unknown; use one of {', '.join(RULES)}.")
    names = ("rule", "selection", "start", "end")
    chosen = {name: value for name in names if (value := getattr(options, name)) is not None}
    if not (curves or chosen or options.preset):
        return None
    base = PRESETS.get(options.preset or "", constant(0.5, 0.9, 1.5))
    return replace(base, **curves, **chosen)


def cfg_of(given: float | None, schedule: Schedule) -> float:
    """The scale of CFG beside a schedule from the option --cfg; ValueError if its rule has none."""
    if given is None:
        return 1.0
    if not RULES[schedule.rule].beside_cfg:
        raise ValueError(f"--cfg {given:g}: the rule {schedule.rule} has no CFG scale of its own; use --omega.")
    return given
