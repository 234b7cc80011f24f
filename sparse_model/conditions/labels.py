"""From what a person types to the label weights that a class-conditional network takes."""

import math
import re
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

COMMAS = re.compile("[\r\n\uff0c\u3001]")
"""What separates labels as a comma does, unless it is part of one: a line break, and the commas of Chinese."""

SEPARATORS = re.compile("[;|\uff1b]")
"""What people also write between words; the last one is a Chinese semicolon."""

IMAGENET = Path(__file__).parent / "imagenet.txt"


def class_names(classes: int) -> tuple[str, ...]:
    """Labels where a file names none: those of ImageNet for its 1,000 classes, else the classes' numbers."""
    if classes == 1000:
        return tuple(IMAGENET.read_text(encoding="utf-8").splitlines())
    return tuple(str(number) for number in range(classes))


def label_weights(text: str, labels: Sequence[str]) -> Tensor:
    """Label weights [classes] of a list with commas (wide ones too) or line breaks: "twemoji, rocket", "rocket:0.5",
    "(rocket:1.3)" as prompts write it, or ids such as "207" where no label has that name.

    Every name weighs 1 unless a weight, from -100 to 100, follows its colon. Empty text is the null condition, all
    zeros. ValueError for a name that is not a label, with the nearest ones, and for a weight that is none.
    """
    weights = torch.zeros(len(labels))
    numbers = {label.lower(): i for i, label in enumerate(labels)}
    for entry in filter(None, (part.strip() for part in text.split(","))):
        lines = [entry] if _reads(entry, numbers) else filter(None, map(str.strip, COMMAS.split(entry)))
        for line in lines:
            place, weight = _place_and_weight(line, numbers)
            weights[place] = weight
    return weights


def _place_and_weight(entry: str, numbers: dict[str, int]) -> tuple[int, float]:
    """The class of an entry, and what it weighs."""
    try:
        name, weight = _name_and_weight(entry, numbers)
        return _find(name.strip().lower(), numbers), weight
    except ValueError as error:
        if len(parts := _without_commas(entry, numbers)) < 2:
            raise
        shown, parts = printable(entry, SHOWN), printable(", ".join(parts), SHOWN)
        raise ValueError(f"'{shown}' is not a label of this model; write commas between: {parts}") from error


def _name_and_weight(entry: str, numbers: dict[str, int]) -> tuple[str, float]:
    """An entry as it is if that is a label, without brackets around it, and cut at its last colon."""
    if entry.lower() in numbers:
        return entry, 1.0
    inner = entry[1:-1].strip() if entry[0] == "(" and entry[-1] == ")" else entry
    if inner.lower() in numbers or ":" not in inner:
        return inner, 1.0
    name, _, weight = inner.rpartition(":")
    if not name.strip():
        shown = printable(entry, SHOWN)
        raise ValueError(f"'{shown}' has no label before the colon; write a label as 'rocket' or 'rocket:0.5'.")
    return name, _number(weight, entry)


def _reads(entry: str, numbers: dict[str, int]) -> bool:
    """Whether an entry is a label or a class id, weighed or not."""
    try:
        name, _ = _name_and_weight(entry, numbers)
    except ValueError:
        return False
    return _place(name.strip().lower(), numbers) is not None


def _without_commas(entry: str, numbers: dict[str, int]) -> list[str]:
    """The labels that stand side by side in an entry, the longest first; none if it holds anything else."""
    words = SEPARATORS.sub(" ", entry).split() if len(entry) <= LONGEST else []
    found = []
    while words:
        heads = (" ".join(words[:count]) for count in range(len(words), 0, -1))
        head = next((head for head in heads if _reads(head, numbers)), None)
        if head is None:
            return []
        found.append(head)
        words = words[len(head.split()) :]
    return found


def _place(name: str, numbers: dict[str, int]) -> int | None:
    """The class of a label; of a number that is no label, the class of that id."""
    if name in numbers:
        return numbers[name]
    number = int(name) if name.isdecimal() and len(name) < 10 else len(numbers)
    return number if number < len(numbers) else None


def _find(name: str, numbers: dict[str, int]) -> int:
    place = _place(name, numbers)
    if place is not None:
        return place
    classes, shown = len(numbers), printable(name, SHOWN)
    if name.isdecimal():
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
        number = math.nan
    if math.isnan(number):
        raise ValueError(f"'{shown}' has no number after the colon; write a label as 'rocket' or 'rocket:0.5'.")
    if not abs(number) <= HEAVIEST:
        raise ValueError(f"'{shown}' weighs too much; write a weight from -{HEAVIEST} to {HEAVIEST}.")
    return number
