"""From what a person types to the label weights that a class-conditional network takes."""

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

import torch
from torch import Tensor

from ..files import printable

HEAVIEST = 100
"""More than any network takes: weights multiply what was trained at 1."""

SHOWN, LONGEST = 80, 300
"""Characters of a name in an error, and of one that is compared with every label."""

IMAGENET = Path(__file__).parent / "imagenet.txt"


def class_names(classes: int) -> tuple[str, ...]:
    """Labels where a file names none: those of ImageNet for its 1,000 classes, else the classes' numbers."""
    if classes == 1000:
        return tuple(IMAGENET.read_text(encoding="utf-8").splitlines())
    return tuple(str(number) for number in range(classes))


def label_weights(text: str, labels: Sequence[str]) -> Tensor:
    """Label weights [classes] of a comma-separated list: "twemoji, rocket", "rocket:0.5", "(rocket:1.3)" as prompts
    write it, or ids such as "207".

    Every name weighs 1 unless a weight, from -100 to 100, follows its colon. Empty text is the null condition, all
    zeros. ValueError for a name that is not a label, with the nearest ones, and for a weight that is none.
    """
    weights = torch.zeros(len(labels))
    numbers = {label.lower(): i for i, label in enumerate(labels)}
    for entry in filter(None, (part.strip() for part in text.split(","))):
        name, weight = _name_and_weight(entry, numbers)
        weights[_find(name.strip().lower(), numbers)] = weight
    return weights


def _name_and_weight(entry: str, numbers: dict[str, int]) -> tuple[str, float]:
    """An entry as it is if that is a label, without brackets around it, and cut at its last colon."""
    if entry.lower() in numbers:
        return entry, 1.0
    inner = entry[1:-1].strip() if entry[0] == "(" and entry[-1] == ")" else entry
    if inner.lower() in numbers or ":" not in inner:
        return inner, 1.0
    name, _, weight = inner.rpartition(":")
    return name, _number(weight, entry)


def _find(name: str, numbers: dict[str, int]) -> int:
    if name in numbers:
        return numbers[name]
    classes, shown = len(numbers), printable(name, SHOWN)
    if name.isdecimal():
        number = int(name) if len(name) < 10 else classes
        if number < classes:
            return number
        raise ValueError(f"class id {shown} is past the end: the model has {classes} classes, 0 to {classes - 1}.")
    near = get_close_matches(name, numbers, n=3, cutoff=0.5) if len(name) <= LONGEST else []
    near += [label for label in numbers if name in label.split() and label not in near][: 3 - len(near)]
    near = [printable(label, SHOWN) for label in near or list(numbers)[:8]]
    hint = f"did you mean {', '.join(near)}?" if len(near) <= 3 else f"it knows {', '.join(near)}, \u2026"
    raise ValueError(f"'{shown}' is not a label of this model; {hint}")


def _number(weight: str, entry: str) -> float:
    shown = printable(entry, SHOWN)
    try:
        number = float(weight)
    except ValueError:
        raise ValueError(
            f"'{shown}' has no number after the colon; write a label as 'rocket' or 'rocket:0.5'."
        ) from None
    if not abs(number) <= HEAVIEST:
        raise ValueError(f"'{shown}' weighs too much; write a weight from -{HEAVIEST} to {HEAVIEST}.")
    return number
