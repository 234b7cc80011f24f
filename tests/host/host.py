"""A real ComfyUI server with this pack installed, and a client that speaks to it as the editor does."""

import ctypes
import io
import json
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import requests
import websocket
from hosts import REPOSITORY, Checkout, device_flags
from PIL import Image

PACK = "comfyui-sparse-guidance"
"""The folder name under `custom_nodes`; like most published packs it is no valid Python identifier."""

FLAGS = ("--disable-api-nodes", "--disable-auto-launch", "--database-url", "sqlite:///:memory:")
START_SECONDS = 180
STOP_SECONDS = 20
_prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None

Workflow = dict[str, dict[str, Any]]
"""A workflow in API form: node id -> {"class_type": ..., "inputs": {...}}."""


@dataclass
class Result:
    """What one run of a workflow left behind. `error` is None when it ran to its end."""

    prompt_id: str | None
    seconds: float
    error: dict[str, Any] | None = None
    outputs: dict[str, dict[str, Any]] = field(default_factory=dict)  # node id -> what its ui showed
    images: dict[str, list[Image.Image]] = field(default_factory=dict)  # node id -> saved and previewed images
    events: list[dict[str, Any]] = field(default_factory=list)  # websocket messages: {"type": ..., "data": {...}}
    previews: list[bytes] = field(default_factory=list)  # binary messages: latent previews while sampling

    @property
    def progress(self) -> list[tuple[int, int]]:
        """(value, max) of every progress bar update. Newer hosts drop updates that follow within 100 ms."""
        return [(event["data"]["value"], event["data"]["max"]) for event in self.named("progress")]

    def named(self, kind: str) -> list[dict[str, Any]]:
        """List the events of one kind, in order."""
        return [event for event in self.events if event["type"] == kind]

    def pixels(self, node: str | None = None) -> np.ndarray:
        """Images of `node`, or of the only node that has any -> uint8 [B, H, W, C]."""
        if self.error is not None:
            raise AssertionError(f"the run failed: {json.dumps(self.error, indent=1)[:4000]}")
        if node is None:
            (node,) = self.images
        return np.stack([np.asarray(image) for image in self.images[node]])


class Host:
    """One server process. Use as a context manager: entering starts it and waits until it answers."""

    def __init__(self, checkout: Checkout, directory: Path, flags: tuple[str, ...] = ()) -> None:
        """Serve from `directory`, a fresh folder that gets the host's models, input, output, ... folders."""
        self.checkout = checkout
        self.version = checkout.version
        self.directory = directory
        self.flags = (*FLAGS, *device_flags(flags), *flags)
        self.port = _free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.start_seconds = 0.0
        self._log = directory / "server.log"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Host":
        nodes = self.directory / "custom_nodes"
        nodes.mkdir(parents=True, exist_ok=True)
        for folder in ("user", "input", "output", "models"):
            (self.directory / folder).mkdir(exist_ok=True)
        (nodes / PACK).symlink_to(REPOSITORY, target_is_directory=True)
        command = [str(self.checkout.python), "main.py", "--listen", "127.0.0.1", "--port", str(self.port)]
        command += ["--base-directory", str(self.directory), *self.flags]
        started = time.monotonic()
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                cwd=self.checkout.root,
                env=self.checkout.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=_as_our_child,
            )
        try:
            self._wait_until_ready(started + START_SECONDS)
        except BaseException:
            self.stop()
            raise
        self.start_seconds = time.monotonic() - started
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> int | None:
        """Stop as Ctrl-C does, harder if that takes too long. Returns the exit status."""
        process, self._process = self._process, None
        if process is None:
            return None
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            if process.poll() is None:
                process.send_signal(number)
            try:
                return process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                continue
        return process.poll()

    @property
    def pid(self) -> int:
        """The number of the server's process."""
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> str:
        """Everything the server has printed so far."""
        return self._log.read_text(errors="replace")

    @property
    def load_errors(self) -> list[str]:
        """The server's complaints about custom nodes; empty when the pack was imported and named its nodes."""
        signs = (
            "Cannot import",
            "IMPORT FAILED",
            "Error while calling comfy_entrypoint",
            "module for custom nodes due to",
        )
        return [line for line in self.log.splitlines() if any(sign in line for sign in signs)]

    def object_info(self, node_id: str | None = None) -> dict[str, Any]:
        """Schemas of all nodes, or of one."""
        answer = self.get(f"/object_info/{node_id}" if node_id else "/object_info").json()
        return answer[node_id] if node_id else answer

    def get(self, path: str, **parameters: str) -> requests.Response:
        """GET any of the server's addresses; raises on an error status."""
        response = requests.get(self.url + path, params=parameters, timeout=120)
        response.raise_for_status()
        return response

    def post(self, path: str, body: dict[str, Any]) -> requests.Response:
        """POST JSON; the caller looks at the status."""
        return requests.post(self.url + path, json=body, timeout=120)

    def upload(self, image: Image.Image, name: str) -> str:
        """Put an image into the input folder; returns the name for a LoadImage node."""
        data = io.BytesIO()
        image.save(data, "PNG")
        files = {"image": (name, data.getvalue(), "image/png")}
        response = requests.post(f"{self.url}/upload/image", files=files, data={"overwrite": "true"}, timeout=120)
        response.raise_for_status()
        return str(response.json()["name"])

    def interrupt(self) -> None:
        """Stop whatever is running, like the editor's cancel button."""
        self.post("/interrupt", {}).raise_for_status()

    def queue(self, workflow: Workflow, client_id: str = "") -> str:
        """Put a workflow in the queue -> its prompt id. Raises ValueError with the host's words when it is refused."""
        response = self.post("/prompt", {"prompt": workflow, "client_id": client_id})
        answer = response.json()
        if response.status_code != requests.codes.ok or answer.get("node_errors"):
            raise ValueError(json.dumps(answer))
        return str(answer["prompt_id"])

    def run(
        self, workflow: Workflow, timeout: float = 600, on_event: Callable[[dict[str, Any]], None] | None = None
    ) -> Result:
        """Queue a workflow and follow it to its end. `on_event` sees every message and may interrupt."""
        started = time.monotonic()
        client_id = uuid.uuid4().hex
        stream = websocket.create_connection(f"ws://127.0.0.1:{self.port}/ws?clientId={client_id}", timeout=timeout)
        try:
            try:
                prompt_id = self.queue(workflow, client_id)
            except ValueError as refusal:
                return Result(None, time.monotonic() - started, error=json.loads(str(refusal)))
            result = Result(prompt_id, 0.0)
            self._follow(stream, result, started + timeout, on_event)
        finally:
            stream.close()
        result.seconds = time.monotonic() - started
        result.outputs = self.get(f"/history/{prompt_id}").json().get(prompt_id, {}).get("outputs", {})
        for node, output in result.outputs.items():
            found = [entry for entry in output.get("images", []) if isinstance(entry, dict)]
            if found:
                result.images[node] = [self.view(entry) for entry in found]
        return result

    def view(self, entry: dict[str, str]) -> Image.Image:
        """Read back one image the host has written: {"filename": ..., "subfolder": ..., "type": "output" or "temp"}."""
        return Image.open(io.BytesIO(self.get("/view", **entry).content))

    def _follow(
        self,
        stream: websocket.WebSocket,
        result: Result,
        deadline: float,
        on_event: Callable[[dict[str, Any]], None] | None,
    ) -> None:
        while True:
            stream.settimeout(max(deadline - time.monotonic(), 0.001))
            try:
                message = stream.recv()
            except websocket.WebSocketTimeoutException:
                raise TimeoutError(f"still running; the server's last lines:\n{self.log[-3000:]}") from None
            if isinstance(message, bytes):
                result.previews.append(message)
                continue
            event = json.loads(message)
            if event.get("data", {}).get("prompt_id", result.prompt_id) != result.prompt_id:
                continue
            result.events.append(event)
            if on_event is not None:
                on_event(event)
            if event["type"] in ("execution_error", "execution_interrupted"):
                result.error = {"type": event["type"], **event["data"]}
            if event["type"] == "executing" and event["data"]["node"] is None:
                return  # the last message of a run: its history is complete now

    def _wait_until_ready(self, deadline: float) -> None:
        assert self._process is not None
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                break
            try:
                self.get("/system_stats")
            except requests.RequestException:
                time.sleep(0.3)
            else:
                return
        raise RuntimeError(f"ComfyUI {self.version} did not start:\n{self.log[-4000:]}")


def _as_our_child() -> None:
    """Runs in a new process: it hears Ctrl-C, which a shell's background jobs ignore, and ends when this process does,
    also where that is killed."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if _prctl is not None:
        _prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
