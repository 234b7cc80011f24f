"""A file of results: one JSON line per measured cell, appended whole, read again when a sweep goes on."""

import json
from pathlib import Path
from typing import Any


class Results:
    """The lines of one model's results file. ValueError if the file belongs to another model or is not such a file.

    A line that a killed run left unfinished is dropped.
    """

    def __init__(self, path: Path, model: str):
        self.path, self.model = path, model
        if not path.parent.is_dir():
            raise ValueError(f"'{path}': the folder '{path.parent}' does not exist.")
        text = path.read_bytes() if path.is_file() else b""
        whole = text[: text.rfind(b"\n") + 1]
        self.rows = [self._parse(line, number) for number, line in enumerate(whole.splitlines(), 1)]
        self.unfinished = len(text) - len(whole)

    def _parse(self, line: bytes, number: int) -> dict[str, Any]:
        try:
            row = json.loads(line)
            model = row["model"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"'{self.path}' line {number} is not a result; name another file for results.") from error
        if model != self.model:
            raise ValueError(
                f"'{self.path}' holds results of the model {model}, not of {self.model}; name another file for results."
            )
        return row

    def find(self, key: str, plan: str | None = None) -> dict[str, Any] | None:
        """The row that was measured under `key`, for `plan` if given."""
        return next((row for row in self.rows if row["key"] == key and plan in (None, row["plan"])), None)

    def add(self, row: dict[str, Any], write: bool = True) -> None:
        """Takes a row and appends it to the file, unless another process does.

        Where that fails (disk full), the file is left as it was and OSError says so.
        """
        line = json.dumps({"model": self.model, **row}) + "\n"
        if write:
            self._append(line)
        self.rows.append(json.loads(line))  # as it will be read from the file

    def _append(self, line: str) -> None:
        with open(self.path, "ab") as file:
            start = file.tell() - self.unfinished
            file.truncate(start)
            try:
                file.write(line.encode())
                file.flush()
            except OSError as error:
                file.truncate(start)
                raise OSError(
                    f"'{self.path}' could not be written ({error.strerror}); make room and call the same again: it "
                    "goes on where it stopped."
                ) from error
        self.unfinished = 0
