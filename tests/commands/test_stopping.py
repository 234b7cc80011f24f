"""Ctrl-C and SIGTERM: one sentence, the exit code that shells know, nothing half written."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from sparse_model.__main__ import main
from sparse_model.commands import convert, cost, evaluate, inspect, sample, sweep, train

ROOT = Path(__file__).parents[2]
VERBS = {
    "sample": (sample, "nothing was written."),
    "convert": (convert, "nothing was written."),
    "inspect": (inspect, "nothing was written."),
    "cost": (cost, "nothing was written."),
    "evaluate": (evaluate, "what was measured is kept, and the same call goes on from there."),
    "sweep": (sweep, "what was measured is kept, and the same call goes on from there."),
    "train": (train, "the same call goes on from the last state that was saved."),
}
ARGUMENTS = {"convert": ["a.pt", "b.safetensors"], "inspect": ["a.pt"], "train": ["data", "--out", "run"]}


@pytest.fixture(autouse=True)
def heard():
    """Ctrl-C as a terminal gives it: a process that a shell started in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("name", VERBS)
def test_every_command(name, number, monkeypatch, capsys):
    verb, says = VERBS[name]

    def signalled(options):
        os.kill(os.getpid(), number)
        time.sleep(10)

    monkeypatch.setattr(verb, "run", signalled)
    before = signal.getsignal(signal.SIGTERM)
    assert main([name, *ARGUMENTS.get(name, [])]) == 128 + number
    assert capsys.readouterr().err == f"\npython -m sparse_model {name}: stopped; {says}\n"
    assert signal.getsignal(signal.SIGTERM) is before


def test_beside_the_main_thread(capsys):
    codes = []
    thread = threading.Thread(target=lambda: codes.append(main(["cost"])))
    thread.start()
    thread.join()
    assert codes == [0]


def test_a_picture_in_the_making(tmp_path):
    command = [sys.executable, "-m", "sparse_model", "sample", "--steps", "9999", "--out", tmp_path / "out.png"]
    with subprocess.Popen(
        command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:  # fmt: skip
        while process.stderr.read(1) != "%":  # of the progress bar
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert error.endswith("python -m sparse_model sample: stopped; nothing was written.\n") and "Traceback" not in error
    assert list(tmp_path.iterdir()) == []
