"""The command line: python -m sparse_model sample | train | evaluate | sweep | evidence | convert | inspect | cost."""

import sys

from .commands import convert, cost, evaluate, evidence, inspect, sample, sweep, train
from .commands.parser import run_verb


def main(arguments: list[str] | None = None) -> int:
    """Runs one verb -> the exit code: 0, or 2 after one sentence of what is wrong."""
    return run_verb((sample, train, evaluate, sweep, evidence, convert, inspect, cost), __doc__, arguments)


if __name__ == "__main__":
    sys.exit(main())
