"""Numbers that options take: argparse types that say in one sentence what is out of range."""

import argparse
import math
from collections.abc import Callable

SEEDS = 2**62  # seeds are smaller, so that seed + i of a column stays one that PyTorch takes


def whole(least: int, most: int | None = None) -> Callable[[str], int]:
    """A whole number from `least` to `most`, both included."""

    def number(text: str) -> int:
        return _within(int(text), text, least, most)

    number.__name__ = "whole number"  # argparse: invalid whole number value: 'abc'
    return number


def real(least: float, most: float | None = None) -> Callable[[str], float]:
    """A number from `least` to `most`, both included; never NaN."""

    def number(text: str) -> float:
        value = float(text)
        if math.isnan(value):
            raise ValueError(text)
        return _within(value, text, least, most)

    number.__name__ = "number"
    return number


def _within(value, text: str, least, most):
    if value < least:
        raise argparse.ArgumentTypeError(f"{text} is too small; at least {least}.")
    if most is not None and value > most:
        raise argparse.ArgumentTypeError(f"{text} is too large; at most {most}.")
    return value
