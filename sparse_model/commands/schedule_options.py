"""The options that describe a schedule."""

import argparse
from dataclasses import replace

from ..method.guidance import RULES
from ..method.schedule import PRESETS, Curve, Schedule, constant
from ..method.tokens import SELECTIONS


def add_schedule(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("guidance", "a preset, changed by whatever else is given")
    group.add_argument("--preset", choices=list(PRESETS), help="settings of the papers (arXiv 2601.01608, 2510.21986)")
    curve = "a number, 'cosine 0 0.6', 'linear A B', 'step A B [AT]', or keyframes '0:0.5, 0.3:0.2'"
    group.add_argument("--gamma-strong", metavar="CURVE", help=f"sparsity rate of the strong branch: {curve}")
    group.add_argument("--gamma-weak", metavar="CURVE", help="sparsity rate of the weak branch, likewise")
    group.add_argument("--omega", metavar="CURVE", help="guidance scale, likewise")
    group.add_argument("--rule", help="SG, CFG, CFG + SG, ICG, AG or AG + SG")
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
    chosen = {name: value for name in ("rule", "selection") if (value := getattr(options, name))}
    if not (curves or chosen or options.preset):
        return None
    base = PRESETS.get(options.preset or "", constant(0.5, 0.9, 1.5))
    return replace(base, **curves, **chosen)
