"""The host's real editor in a headless browser: does it accept a workflow, and what is a workflow's editor form?

    python tests/host/editor.py install                      fetch playwright-core, about 14 MB, into a cache folder
    python tests/host/editor.py convert API.json... --into workflows    editor forms of API-form workflows

Needs node, a Chromium or Chrome (`CHROMIUM` names one that is not on PATH) and playwright-core.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from host import Host, Workflow
from hosts import find_checkouts

SCRIPT = Path(__file__).with_name("browser.mjs")
PACKAGE = "playwright-core@1"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sparse-guidance-tests"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


@dataclass(frozen=True)
class Report:
    """What the editor shows after a workflow was loaded into it."""

    frontend: str | None
    nodes: list[dict[str, str]]  # id, type, title
    links: int
    missing: list[str]  # node types the host does not know
    errored: list[str]  # ids of nodes drawn in red
    widgets: list[dict[str, Any]]  # node, type, widget, value: a value the widget does not offer, or out of its range
    dialogs: list[str]  # the text of every dialog and toast
    console: list[str]  # errors on the browser's console
    prompt: Workflow  # the API form the editor would queue
    workflow: dict[str, Any] | None = None  # the editor form; only after a conversion

    @property
    def problems(self) -> list[str]:
        """Everything a user would have to repair, in words; empty for a good workflow."""
        return [
            *(f"unknown node type {name}" for name in self.missing),
            *(f"node {node} is marked as wrong" for node in self.errored),
            *(f"{w['type']} (node {w['node']}): {w['widget']} cannot be {w['value']!r}" for w in self.widgets),
            *(f"dialog: {text}" for text in self.dialogs),
            *(f"console: {text}" for text in self.console),
        ]


class Editor:
    """The editor of one running host."""

    def __init__(self, host: Host) -> None:
        self.host = host

    def check(self, workflow: Path, screenshot: Path | None = None) -> Report:
        """Open a workflow file, in either form, as a user does."""
        return self._browse("check", workflow, screenshot)

    def convert(self, workflow: Workflow, screenshot: Path | None = None) -> dict[str, Any]:
        """API form -> editor form, laid out, with fixed seeds. Raises ValueError if the editor finds fault with it."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "workflow.json"
            path.write_text(json.dumps(workflow))
            report = self._browse("convert", path, screenshot)
        if report.problems or report.workflow is None:
            raise ValueError("; ".join(report.problems) or "the editor returned no workflow")
        return report.workflow

    def _browse(self, task: str, workflow: Path, screenshot: Path | None) -> Report:
        reason = why_no_editor()
        if reason:
            raise RuntimeError(reason)
        job = {"url": self.host.url, "task": task, "workflow": str(workflow.resolve()), "chromium": _chromium()}
        if screenshot is not None:
            job["screenshot"] = str(screenshot)
        environment = {**os.environ, "NODE_PATH": str(CACHE / "node_modules")}
        command = ["node", str(SCRIPT), json.dumps(job)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
        answer = json.loads(done.stdout) if done.stdout.strip() else {"failure": done.stderr}
        if "failure" in answer:
            raise RuntimeError(f"the editor did not open {workflow.name}: {answer['failure']}")
        return Report(**{field.name: answer.get(field.name) for field in fields(Report)})


def why_no_editor() -> str | None:
    """Why the editor cannot be tested here; None if it can."""
    if shutil.which("node") is None:
        return "editor tests need node"
    if _chromium() is None:
        return "editor tests need Chromium: put it on PATH or name it in CHROMIUM"
    if not any((folder / "node_modules" / "playwright-core").is_dir() for folder in (CACHE, SCRIPT.parent)):
        return "editor tests need playwright-core: run `python tests/host/editor.py install`"
    return None


def install() -> None:
    """Fetch playwright-core, without a browser of its own, into the cache folder."""
    CACHE.mkdir(parents=True, exist_ok=True)
    subprocess.run(["npm", "install", "--no-audit", "--no-fund", "--prefix", str(CACHE), PACKAGE], check=True)


def _chromium() -> str | None:
    named = os.environ.get("CHROMIUM")
    return named if named else next(filter(None, map(shutil.which, BROWSERS)), None)


def _convert(paths: list[Path], folder: Path) -> None:
    """Write the editor form of each API-form file, under the same name, into `folder`.

    The oldest host does it: newer editors open what older ones wrote, not always the other way round.
    """
    with tempfile.TemporaryDirectory() as directory, Host(find_checkouts()[0], Path(directory)) as host:
        for path in paths:
            workflow = Editor(host).convert(json.loads(path.read_text()), folder / f"{path.stem}.png")
            (folder / path.name).write_text(json.dumps(workflow, indent=2) + "\n")
            print(folder / path.name)


def main(arguments: list[str]) -> None:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("install")
    convert = commands.add_parser("convert")
    convert.add_argument("paths", type=Path, nargs="+")
    convert.add_argument("--into", type=Path, required=True)
    options = parser.parse_args(arguments)
    if options.command == "install":
        install()
    else:
        _convert(options.paths, options.into)


if __name__ == "__main__":
    main(sys.argv[1:])
