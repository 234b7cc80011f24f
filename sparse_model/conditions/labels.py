"""From what a person types to the label weights that a class-conditional network takes."""

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

import torch
from torch import Tensor

IMAGENET = Path(__file__).parent / "imagenet.txt"


def class_names(classes: int) -> tuple[str, ...]:
    """Labels where a file names none: those of ImageNet for its 1,000 classes, else the classes' numbers."""
    if classes == 1000:
        return tuple(IMAGENET.read_text(encoding="utf-8").splitlines())
    return tuple(str(number) for number in range(classes))


def label_weights(text: str, labels: Sequence[str]) -> Tensor:
    """Label weights [classes] of a comma-separated list: "twemoji, rocket", "rocket:0.5", or ids such as "207".

    Every name weighs 1 unless a weight follows its colon. Empty text is the null condition, all zeros. ValueError for
    a name that is not a label, with the nearest ones.
    """
    weights = torch.zeros(len(labels))
    numbers = {label.lower(): i for i, label in enumerate(labels)}
    for entry in filter(None, (part.strip() for part in text.split(","))):
        name, _, weight = entry.rpartition(":") if ":" in entry and entry.lower() not in numbers else (entry, "", "1")
        weights[_find(name.strip().lower(), numbers)] = _number(weight, entry)
    return weights


def _find(name: str, numbers: dict[str, int]) -> int:
    if name in numbers:
        return numbers[name]
    classes = len(numbers)
    if name.isdigit():
        if int(name) < classes:
            return int(name)
        raise ValueError(f"class id {name} is past the end: the model has {classes} classes, 0 to {classes - 1}.")
    near = get_close_matches(name, numbers, n=3, cutoff=0.5)
    near += [label for label in numbers if name in label.split() and label not in near][: 3 - len(near)]
    hint = f"did you mean {', '.join(near)}?" if near else f"it knows {', '.join(list(numbers)[:8])}, …"
    raise ValueError(f"'{name}' is not a label of this model; {hint}")


def _number(weight: str, entry: str) -> float:
    try:
        return float(weight)
    except ValueError:
        raise ValueError(
            f"'{entry}' has no number after the colon; write a label as 'rocket' or 'rocket:0.5'."
        ) from None
