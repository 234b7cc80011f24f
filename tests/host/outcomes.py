"""Cases that a script runs inside a host's Python, each by its name."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hosts import REPOSITORY, Checkout


class Outcomes(dict[str, Any]):
    """Case of a script -> its result; asking for one that failed there fails the test, in the words of the host."""

    def __init__(self, folder: Path):
        super().__init__()
        self.folder, self.errors = folder, {}

    def __missing__(self, name: str) -> Any:
        pytest.fail(self.errors.get(name, f"there is no case '{name}'"))


def known(found: Any) -> Any:
    """A result that is one: a case that a host cannot have gives None, and its test is skipped."""
    if found is None:
        pytest.skip("this host does not have that")
    return found


def run_cases(checkout: Checkout, script: Path, folder: Path) -> Outcomes:
    """All cases of the script. Where its process dies, the case that it died in fails and the others go on."""
    command = [checkout.python, script, checkout.root, REPOSITORY, folder / "tiny.safetensors"]
    outcomes, left = Outcomes(folder), []
    while True:
        done = subprocess.run(
            [*command, *left], cwd=folder, env=checkout.environment, capture_output=True, text=True, timeout=900,
            check=False,
        )  # fmt: skip
        lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith(("[", "{"))]
        assert lines, done.stderr[-4000:]  # not even the names of the cases
        names, *ended = lines
        for outcome in ended:
            if "error" in outcome:
                outcomes.errors[outcome["name"]] = outcome["error"]
            else:
                outcomes[outcome["name"]] = outcome["result"]
        if len(ended) == len(names):
            return outcomes
        died, *left = names[len(ended) :]
        outcomes.errors[died] = f"the process ended with {done.returncode}:\n{done.stderr[-4000:]}"
        if not left:
            return outcomes
