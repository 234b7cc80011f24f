"""Fixtures that start real ComfyUI servers. Without a checkout (see hosts.py) every test here is skipped, loudly."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from editor import Editor, why_no_editor
from host import Host
from hosts import MEMORY_FLAGS, NO_MOTIF, Checkout, find_checkouts, has_accelerator, version_key
from text_scene import write_files

CHECKOUTS = find_checkouts()
NO_HOST = "no ComfyUI checkout found: set COMFYUI_PATH (and COMFYUI_PYTHON)"

StartHost = Callable[..., Host]
RENDERERS = {"classic": {"Comfy_VueNodes_Enabled": False}, "Nodes 2.0": {"Comfy_VueNodes_Enabled": True}}
READY_AFTER = pytest.StashKey[dict[str, float]]()
"""Seconds each version took to start."""


@pytest.fixture(
    scope="session", params=CHECKOUTS or [None], ids=lambda checkout: checkout.version if checkout else "none"
)
def checkout(request: pytest.FixtureRequest) -> Checkout:
    """Give each ComfyUI version in turn."""
    if request.param is None:
        pytest.skip(NO_HOST)
    return request.param


@pytest.fixture(scope="session")
def host(checkout: Checkout, tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[Host]:
    """Start a server of each version in turn, shared by all tests of the session."""
    with Host(checkout, tmp_path_factory.mktemp(f"host-{checkout.version}")) as running:
        pytestconfig.stash.setdefault(READY_AFTER, {})[checkout.version] = running.start_seconds
        yield running


@pytest.fixture(scope="session")
def text_files(host: Host) -> None:
    """Give the host the files of text_scene."""
    write_files(host.directory / "models")


@pytest.fixture
def start_host(checkout: Checkout, tmp_path: Path) -> Iterator[StartHost]:
    """`start_host("--novram")` -> another server with these flags, until the test ends."""
    started: list[Host] = []

    def start(*flags: str) -> Host:
        if MEMORY_FLAGS.intersection(flags) - {"--cpu"} and not has_accelerator(checkout.python):
            pytest.skip(f"{' '.join(flags)} needs an accelerator")
        started.append(Host(checkout, tmp_path / f"host-{len(started)}", flags).__enter__())
        return started[-1]

    yield start
    for running in started:
        running.stop()


@pytest.fixture(scope="session")
def editor(host: Host) -> Editor:
    """Give the editor of the running host in a headless browser."""
    reason = why_no_editor()
    if reason:
        pytest.skip(reason)
    return Editor(host)


@pytest.fixture(params=RENDERERS)
def renderer(request: pytest.FixtureRequest, host: Host) -> dict[str, Any]:
    """Settings of the editor under which it draws nodes in each of its ways."""
    if request.param == "Nodes 2.0" and version_key(host.version) < (0, 4):
        pytest.skip("this editor has no Nodes 2.0 yet")
    return RENDERERS[request.param]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say in one line each what was not tested, so that a green run without a host is not mistaken for a full one."""
    reasons = [reason for reason in (None if CHECKOUTS else NO_HOST, why_no_editor(), NO_MOTIF) if reason]
    for reason in reasons:
        terminalreporter.write_line(f"HOST TESTS SKIPPED: {reason}", red=True, bold=True)
    for version, seconds in terminalreporter.config.stash.get(READY_AFTER, {}).items():
        terminalreporter.write_line(f"host tests used ComfyUI {version}, ready after {seconds:.0f} s")
