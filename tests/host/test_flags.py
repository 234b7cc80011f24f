"""Flags that the host is started with are flags that it has: an unknown one ends it before anything is measured."""

import ast
import re
import subprocess
from collections.abc import Iterator

from hosts import MEMORY_FLAGS, REPOSITORY, Checkout

FLAG = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]+")
CALLS, NAMES = {"load_pack", "start_host"}, {"WAYS", "FLAGS", "argv"}
"""What starts a host, and what its flags are assigned to."""


def passed() -> Iterator[tuple[str, str]]:
    """(file, flag) wherever a host is started, in a server or in its Python alone."""
    for path in sorted([*(REPOSITORY / "tests/host").glob("*.py"), *(REPOSITORY / "benchmarks").glob("*.py")]):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", None) in CALLS:
                given = node.args
            elif isinstance(node, ast.Assign) and {_name(target) for target in node.targets} & NAMES:
                given = [node.value]
            else:
                continue
            texts = (leaf.value for value in given for leaf in ast.walk(value) if isinstance(leaf, ast.Constant))
            yield from ((path.name, flag) for text in texts if isinstance(text, str) for flag in FLAG.findall(text))
    started = re.findall(r"^ *beside host (.*?)(?:#.*)?$", (REPOSITORY / "benchmarks/gpu.sh").read_text(), re.MULTILINE)
    yield from (("gpu.sh", flag) for line in started for flag in FLAG.findall(line))


def _name(target: ast.expr) -> str | None:
    return getattr(target, "id", None) or getattr(target, "attr", None)


def test_the_host_has_every_flag_it_is_started_with(checkout: Checkout) -> None:
    given = set(passed())
    found = {name for name, _ in given}
    assert found >= {"gpu.sh", "host.py", "host_ways.py", "host_models.py", "in_host.py", "inside.py"}
    asked = [str(checkout.python), "main.py", "--help"]
    told = subprocess.run(
        asked, cwd=checkout.root, env=checkout.environment, capture_output=True, text=True, timeout=300, check=True
    )
    known = set(FLAG.findall(told.stdout))
    assert {"--lowvram", "--cpu"} <= known & MEMORY_FLAGS
    assert not sorted((name, flag) for name, flag in given if flag not in known)
