"""How long a run will take, in words."""

UNITS = (("days", 86_400), ("hours", 3_600), ("minutes", 60))


def in_words(seconds: float) -> str:
    """5.6 days, 8.1 hours, 12 minutes, 40 seconds: in the largest unit that there is one and a half of."""
    for unit, size in UNITS:
        if seconds >= 1.5 * size:
            return f"{seconds / size:.{0 if seconds >= 10 * size else 1}f} {unit}"
    return f"{seconds:.0f} seconds"


def beginning(batch: int) -> str:
    """What is said before the steps that are timed, which may take minutes themselves."""
    return (
        f"Training on a CPU: how long it will take is said after two steps of {batch:,} pictures. Smaller ones by "
        "--set batch=64; docs/training.md says what else is faster on a CPU."
    )


def outlook(step: float, left: int, every: int) -> str:
    """What a run of `left` steps of `step` seconds asks for, and what a kill would lose: it saves `every` steps."""
    return (
        f"A step takes {step:.3g} s on this CPU, so {left:,} steps take {in_words(step * left)}. The state is saved "
        f"every {every:,} steps (--every), which take {in_words(step * every)}, and when the run is stopped (Ctrl-C, "
        "--minutes); the same call goes on."
    )
