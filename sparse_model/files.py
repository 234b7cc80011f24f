"""What is safe to do with files that strangers wrote: bounded, one sentence for whatever fails."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

JSON_LIMIT = 64 << 20
"""Bytes of a JSON file: the index of a model of a million tensors has fewer."""
SENTENCE_LIMIT = 400


class FileError(ValueError):
    """What is wrong with a file, in one sentence that does not name it."""


def printable(text: str, limit: int = SENTENCE_LIMIT) -> str:
    """Text out of a file or a file's name as any terminal and any encoder takes it: at most `limit` characters on one
    line, without control characters and surrogates."""
    if len(text) > limit:
        text = f"{text[: limit - 1]}\u2026"
    text = text.encode("utf-8", "replace").decode("utf-8")
    return "".join(character if character.isprintable() else " " for character in text)


def sentence(error: Exception) -> str:
    """What an error says to people. Python's own words are none of it: they speak of code, not of files."""
    if isinstance(error, FileError):
        return printable(str(error))
    if isinstance(error, OSError) and error.strerror:
        return printable(f"it cannot be read ({error.strerror}).")
    return "it cannot be read: it is damaged, or of a form that is not known."


def read_json(path: Path) -> Any:
    """The value in a JSON file; FileError if there is none, whatever the reason."""
    try:
        if not path.is_file() or path.stat().st_size > JSON_LIMIT:  # opening a pipe would wait for its writer
            raise FileError("it is not a JSON file.")
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, MemoryError) as error:
        raise FileError(f"{path.name} cannot be read as JSON.") from error


def model_folders(root: Path, accept: Callable[[Path], object]) -> list[str]:
    """Names of the folders below `root`, down to three levels, with a config.json and taken by `accept`: sorted."""
    configs = (config for depth in (1, 2, 3) for config in root.glob("*/" * depth + "config.json"))
    return sorted(config.parent.relative_to(root).as_posix() for config in configs if accept(config.parent))
