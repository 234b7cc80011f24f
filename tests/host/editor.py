"""The host's real editor in a headless browser: it says what is wrong with a workflow, or lays one out.

    python tests/host/editor.py install                              fetch playwright-core into a cache folder (14 MB)
    python tests/host/editor.py convert API.json... --into FOLDER    write the editor form of API-form workflows

Needs node, a Chromium or Chrome (`CHROMIUM` names one that is not on PATH) and playwright-core.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from host import Host, Workflow
from hosts import REPOSITORY, find_checkouts

SCRIPT = Path(__file__).with_name("browser.mjs")
PACKAGE = "playwright-core@1"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sparse-guidance-tests"
PROJECT = re.compile(r'^(name|version) = "([^"]+)"', re.MULTILINE)
PACK_NODE = re.compile(r"Spars|EmptySparse|TokenRoute")
LINK = re.compile(r"\[([^\]]+)\]\((https://huggingface\.co/[^)]+/resolve/[^)]+)\)")
"""A link to a file where the editor downloads from."""
FOLDERS = {
    "SparseModelLoader": "diffusion_models", "UNETLoader": "diffusion_models", "CheckpointLoaderSimple": "checkpoints",
    "CLIPLoader": "text_encoders", "DualCLIPLoader": "text_encoders", "VAELoader": "vae",
}  # fmt: skip
"""Loaders, and the folder that their files are in."""
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
    hidden: list[str]  # widgets that are not shown, as "type.widget"
    curves: int  # lines that the nodes' plots draw
    choices: list[str]  # suggestions for a text that are shown
    offered: list[str]  # the menu of a link that was dropped on the canvas
    said: list[str]  # what stands under nodes
    templates: dict[str, list[str]]  # what each pack has in the editor's list of templates, in its order
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
    """The editor of one running host. Opening it takes seconds: hand over all workflows of a test at once."""

    def __init__(self, host: Host) -> None:
        self.host = host

    def check(self, workflows: list[Path], screenshots: Path | None = None) -> list[Report]:
        """Open workflow files, in either form, as a user does. Pictures go into the folder `screenshots`, if given."""
        return self._browse("check", workflows, screenshots)

    def opened(self, report: Report, saved: Workflow) -> dict[str, dict[str, Any]]:
        """The inputs of every node of a report, but for those that a node has got since `saved` was and that are at
        their default."""
        inputs = {}
        for name, node in report.prompt.items():
            optional = self.host.object_info(node["class_type"])["input"].get("optional", {})
            before = saved.get(name, node)["inputs"]
            inputs[name] = {
                key: value
                for key, value in node["inputs"].items()
                if key in before or value != optional.get(key, [None, {}])[1].get("default")
            }
        return inputs

    def build(self, plans: list[Path], screenshots: Path | None = None, **settings: Any) -> list[Report]:
        """Make graphs on an empty canvas by searching for their nodes; browser.mjs says what a plan holds. `settings`
        are the editor's, with _ for the dots in their names."""
        named = {name.replace("_", "."): value for name, value in settings.items()}
        return self._browse("build", plans, screenshots, named)

    def convert(self, workflows: list[Path], screenshots: Path | None = None) -> list[dict[str, Any]]:
        """API form -> editor form, laid out, with fixed seeds.

        Raises ValueError if the editor finds fault with one of them.
        """
        converted = []
        for path, report in zip(workflows, self._browse("convert", workflows, screenshots), strict=True):
            if report.problems or report.workflow is None:
                raise ValueError(f"{path.name}: {'; '.join(report.problems)}")
            converted.append(report.workflow)
        return converted

    def _browse(
        self, task: str, workflows: list[Path], screenshots: Path | None, settings: dict[str, Any] | None = None
    ) -> list[Report]:
        reason = why_no_editor()
        if reason:
            raise RuntimeError(reason)
        jobs = [{"path": str(path.resolve())} for path in workflows]
        if screenshots is not None:
            for job, path in zip(jobs, workflows, strict=True):
                job["screenshot"] = str((screenshots / path.with_suffix(".png").name).resolve())
        order = {"url": self.host.url, "task": task, "workflows": jobs, "chromium": _chromium(), "settings": settings}
        environment = {**os.environ, "NODE_PATH": str(CACHE / "node_modules")}
        command = ["node", str(SCRIPT), json.dumps(order)]
        timeout = 300 + 60 * len(jobs)
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"the editor did not open: {done.stdout}{done.stderr}")
        names = [field.name for field in fields(Report)]
        return [Report(**{name: answer.get(name) for name in names}) for answer in json.loads(done.stdout)]


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


def _convert(paths: list[Path], folder: Path, pictures: Path | None) -> None:
    """Write the editor form of each API-form file, under the same name, into `folder`.

    The oldest host does it: newer editors open what older ones wrote, not always the other way round.
    """
    with tempfile.TemporaryDirectory() as directory, Host(find_checkouts()[0], Path(directory)) as host:
        for path, workflow in zip(paths, Editor(host).convert(paths, pictures), strict=True):
            (folder / path.name).write_text(json.dumps(stamped(workflow), indent=2) + "\n")
            print(folder / path.name)


def stamped(workflow: dict[str, Any]) -> dict[str, Any]:
    """The same workflow; its nodes of this pack name the pack and its version, by which the editor offers to install
    it, and its loaders name where their files come from: the links of the workflow's note, where they lead to a file.
    """
    project = dict(PROJECT.findall((REPOSITORY / "pyproject.toml").read_text()))
    notes = [node["widgets_values"][0] for node in workflow["nodes"] if node["type"] == "MarkdownNote"]
    links = [found.groups() for note in notes for found in LINK.finditer(note)]
    for node in workflow["nodes"]:
        if PACK_NODE.match(node["type"]):
            node["properties"] |= {"cnr_id": project["name"], "ver": project["version"]}
        if node["type"] in FOLDERS:
            files = [value for value in node["widgets_values"] if isinstance(value, str) and "." in value]
            models = [
                {"name": file, "url": url, "directory": FOLDERS[node["type"]]}
                for file in files
                for label, url in links
                if file in (label, url.rpartition("/")[2]) or (label, node["type"]) == ("the VAE", "VAELoader")
            ]
            node["properties"] |= {"models": models} if models else {}
    return workflow


def main(arguments: list[str]) -> None:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("install")
    convert = commands.add_parser("convert")
    convert.add_argument("paths", type=Path, nargs="+")
    convert.add_argument("--into", type=Path, required=True)
    convert.add_argument("--pictures", type=Path, help="folder for a picture of the editor with each workflow")
    options = parser.parse_args(arguments)
    if options.command == "install":
        install()
    else:
        _convert(options.paths, options.into, options.pictures)


if __name__ == "__main__":
    main(sys.argv[1:])
