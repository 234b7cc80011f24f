"""A file of results: one JSON line per measured cell, appended whole, read again when a sweep goes on."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

Row = dict[str, Any]


class Results:
    """The rows of one model's results file, one per key and plan: of several lines the last one counts.

    A line that a killed run left unfinished is dropped. ValueError if the file belongs to another model or is not such
    a file.
    """

    def __init__(self, path: Path, model: str):
        self.path, self.model = path, model
        if not path.parent.is_dir():
            raise ValueError(f"'{path}': the folder '{path.parent}' does not exist.")
        self._rows = self._read(path.read_bytes() if path.is_file() else b"")

    @property
    def rows(self) -> list[Row]:
        return list(self._rows.values())

    def _read(self, text: bytes) -> dict[tuple[str, str], Row]:
        rows = (self._parse(line, number) for number, line in enumerate(_whole_lines(text).splitlines(), 1))
        return {(row["key"], row["plan"]): row for row in rows}

    def _parse(self, line: bytes, number: int) -> Row:
        try:
            row = json.loads(line)
            model, key, plan = row["model"], row["key"], row["plan"]
            if not isinstance(key, str) or not isinstance(plan, str):
                raise TypeError
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ValueError(f"'{self.path}' line {number} is not a result; name another file for results.") from error
        if model != self.model:
            raise ValueError(
                f"'{self.path}' holds results of the model {model}, not of {self.model}; name another file for results."
            )
        return row

    def find(self, key: str, plan: str | None = None) -> Row | None:
        """The row that was measured under `key`, for `plan` if given."""
        return next((row for row in self.rows if row["key"] == key and plan in (None, row["plan"])), None)

    def add(self, row: Row, write: bool = True, shared: bool = False) -> Row:
        """Takes a row, appends it to the file, unless another process does or has done, and returns it. In a `shared`
        file the row of whoever was first counts, so that all go on from the same figures, and what others have added
        meanwhile is taken, too.

        Where that fails (disk full), the file is left as it was and OSError says so.
        """
        row = json.loads(json.dumps({"model": self.model, **row}))  # as it will be read from the file
        if write:
            found = self._append(row)
            if shared:
                self._rows |= found
                row = found.get((row["key"], row["plan"]), row)
        self._rows[row["key"], row["plan"]] = row
        return row

    def _append(self, row: Row) -> dict[tuple[str, str], Row]:
        """Writes a row that is not there yet; the rows that were."""
        with open(self.path, "a+b") as file, _locked(file):
            file.seek(0)
            text = file.read()
            rows = self._read(text)
            there = rows.get((row["key"], row["plan"]))
            if there is not None:
                if there.keys() >= row.keys():
                    return rows  # another sweep into this file was faster
                del rows[row["key"], row["plan"]]  # from before a figure was added
            start = len(_whole_lines(text))
            file.truncate(start)
            try:
                file.write(json.dumps(row).encode() + b"\n")
                file.flush()
            except OSError as error:
                file.truncate(start)
                raise OSError(
                    f"'{self.path}' could not be written ({error.strerror}); make room and call the same again: it "
                    "continues from there."
                ) from error
        return rows


def _whole_lines(text: bytes) -> bytes:
    return text[: text.rfind(b"\n") + 1]


@contextlib.contextmanager
def _locked(file: BinaryIO) -> Iterator[None]:
    """Keeps other sweeps from writing to the file; a process that is killed lets go of it."""
    if fcntl is not None:
        fcntl.flock(file, fcntl.LOCK_EX)
    yield  # closing the file unlocks it
