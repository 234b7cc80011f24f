"""Fixtures that start real ComfyUI servers. Without a checkout (see hosts.py) every test here is skipped, loudly."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from editor import Editor, why_no_editor
from host import Host
from hosts import MEMORY_FLAGS, NO_MOTIF, Checkout, find_checkouts, has_accelerator, version_key
from text_scene import write_files
from workers import say

CHECKOUTS = find_checkouts()
NO_HOST = "no ComfyUI checkout found: set COMFYUI_PATH (and COMFYUI_PYTHON)"

StartHost = Callable[..., Host]
RENDERERS = {"classic": {"Comfy_VueNodes_Enabled": False}, "Nodes 2.0": {"Comfy_VueNodes_Enabled": True}}


def pytest_configure(config: pytest.Config) -> None:
    """Say in one line each what is not tested, so that a green run without a host is not mistaken for a full one."""
    for reason in (None if CHECKOUTS else NO_HOST, why_no_editor(), NO_MOTIF):
        if reason:
            say(config, f"HOST TESTS SKIPPED: {reason}", loud=True)


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
        say(pytestconfig, f"host tests used ComfyUI {checkout.version}, ready after {running.start_seconds:.0f} s")
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
