"""The README's command with the oldest packages that requirements.txt allows.

They are laid in front of this environment's, which is fast. PyTorch's own floor is some gigabytes with its libraries:
`FLOOR_TORCH=1` makes an environment of its own with that as well. Both need the package index.
"""

import json
import os
import re
import subprocess
import sys
import venv
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
FLOORS = dict(re.findall(r"^([a-z]+)>=([\d.]+)$", (ROOT / "requirements.txt").read_text(), re.MULTILINE))
RUN = (
    "import importlib.metadata, json, sys\n"
    "from sparse_model.__main__ import main\n"
    "code = main(['sample', 'noto, fox', '--steps', '1', '--out', sys.argv[1]])\n"
    "print(json.dumps({name: importlib.metadata.version(name) for name in sys.argv[2:]}))\n"
    "sys.exit(code)"
)


def installed(python: Path | str, *options: str, **packages: str) -> None:
    """Skips the test, loudly (conftest.py), where there is no package index or nothing for this Python."""
    named = [f"{name}=={version}" for name, version in packages.items()]
    command = [python, "-m", "pip", "install", "--quiet", "--only-binary", ":all:", *options, *named]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"FLOORS NOT TESTED: {(done.stderr.strip().splitlines() or ['pip failed'])[-1][:200]}")


def check(python: Path | str, out: Path, names: list[str], **variables: str) -> None:
    done = subprocess.run(
        [python, "-c", RUN, out, *names], cwd=ROOT, env={**os.environ, **variables}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert {name: version.split("+")[0] for name, version in found.items()} == {
        name: version if version.count(".") > 1 else f"{version}.0" for name, version in FLOORS.items() if name in names
    }
    assert out.stat().st_size > 1000


def test_the_oldest_packages_draw_a_picture(tmp_path):
    others = {name: version for name, version in FLOORS.items() if name != "torch"}
    assert len(others) == 5
    installed(sys.executable, "--no-deps", "--target", str(tmp_path / "floors"), **others)
    check(sys.executable, tmp_path / "out.png", list(others), PYTHONPATH=str(tmp_path / "floors"))


@pytest.mark.skipif(not os.environ.get("FLOOR_TORCH"), reason="downloads gigabytes: set FLOOR_TORCH")
def test_the_oldest_torch_draws_a_picture(tmp_path):
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python"
    installed(python, **FLOORS)
    check(python, tmp_path / "out.png", list(FLOORS))
