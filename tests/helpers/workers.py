"""How `pytest -n auto` divides the tests: two processes, and the tests in one ComfyUI version stay in one of them."""

import os
import re
from typing import Any

import pytest
import torch

IN_A_HOST = re.compile(r"^tests/host/.*?\[(\d[\d.]*)[-\]]")
"""A test's id -> the host's version, which is its first parameter."""

LINES = pytest.StashKey[dict[str, bool]]()
"""Lines of the summary -> whether they are loud."""


def say(config: pytest.Config, line: str, loud: bool = False) -> None:
    """Have a line in the summary, once, whichever process says it."""
    config.stash.setdefault(LINES, {})[line] = loud


def unit_of(test: str) -> str:
    """What stays in one process with a test: all tests in one host, since a server takes long to start, or a file.
    Those of benchmarks are few and long and share nothing, so each is sent by itself, last."""
    found = IN_A_HOST.match(test)
    if found:
        return found[1]
    return test if test.startswith("tests/benchmarks/") else test.partition("::")[0]


def cores() -> int:
    """Those this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Two, since two hosts' tests take most of the time; none on one core, nor for `-x`, because a process ends its
    units before it hears that another failed, nor for `-s`, because what they print is not seen."""
    asked = config.option
    return 0 if asked.maxfail or asked.capture == "no" or cores() == 1 else 2


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Send units to processes, the ones of most tests first; `--dist` names another way."""
    if config.option.dist != "load":
        return None
    from xdist.scheduler import LoadScopeScheduling

    class Units(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return unit_of(nodeid)

    return Units(config, log)


def pytest_configure() -> None:
    """One thread, here and in the processes that tests start, unless OMP_NUM_THREADS says otherwise: the networks of
    tests are so small that their threads would only wait for each other."""
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)
        os.environ["OMP_NUM_THREADS"] = "1"


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workerinput"):
        session.config.workeroutput["lines"] = session.config.stash.get(LINES, {})


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    for line, loud in getattr(node, "workeroutput", {}).get("lines", {}).items():  # a process that died has none
        say(node.config, line, loud)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say loudly what a green run has not tested, and in which hosts it ran."""
    for line, loud in terminalreporter.config.stash.get(LINES, {}).items():
        terminalreporter.write_line(line, red=loud, bold=loud)
