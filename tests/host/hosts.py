"""Which ComfyUI checkouts the host tests run against.

`COMFYUI_PATH`    folders of ComfyUI checkouts, separated like PATH. Default: `~/ComfyUI` and every `~/ComfyUI-*`.
`COMFYUI_PYTHON`  the Python they run in. Default: the checkout's own `venv` or `.venv`, then that of `~/ComfyUI`.
`COMFYUI_FLAGS`   flags of every server that name its device. Default: `--cpu`.

A checkout may hold a folder `pins` with packages of other versions than its environment has: first on PYTHONPATH.
"""

import functools
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
DEFAULT_ROOT = Path.home() / "ComfyUI"
MEMORY_FLAGS = frozenset({"--cpu", "--novram", "--lowvram", "--normalvram", "--highvram", "--gpu-only"})
"""The host accepts one of these at a time; all but `--cpu` need an accelerator."""

NO_MOTIF = None if os.environ.get("MOTIF_PATH") else "Motif-Video with its authors' nodes: set MOTIF_PATH"
"""Why these are not tested."""


@dataclass(frozen=True)
class Checkout:
    """One ComfyUI source tree and the Python that runs it."""

    root: Path
    version: str
    python: Path

    @property
    def environment(self) -> dict[str, str]:
        """The server's environment variables: ours, with the checkout's pins before everything else."""
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        pins = self.root / "pins"
        if pins.is_dir():
            inherited = environment.get("PYTHONPATH")
            environment["PYTHONPATH"] = os.pathsep.join([str(pins), *([inherited] if inherited else [])])
        return environment


def find_checkouts() -> list[Checkout]:
    """Every usable checkout, oldest version first; empty where there is none."""
    named = os.environ.get("COMFYUI_PATH")
    if named:
        roots = [Path(part).expanduser() for part in named.split(os.pathsep) if part]
    else:
        roots = [DEFAULT_ROOT, *sorted(DEFAULT_ROOT.parent.glob("ComfyUI-*"))]
    checkouts = []
    for root in roots:
        python = _python_of(root)
        if (root / "main.py").is_file() and python is not None:
            checkouts.append(Checkout(root.resolve(), _version_of(root), python))
    return sorted(checkouts, key=lambda checkout: version_key(checkout.version))


def version_key(version: str) -> tuple[int, ...]:
    """'0.3.64' -> (0, 3, 64)."""
    return tuple(int(part) for part in re.findall(r"\d+", version))


def device_flags(extra: tuple[str, ...] = ()) -> tuple[str, ...]:
    """List the flags that choose the device, unless `extra` chooses a memory mode itself."""
    if MEMORY_FLAGS.intersection(extra):
        return ()
    return tuple(os.environ.get("COMFYUI_FLAGS", "--cpu").split())


@functools.cache
def has_accelerator(python: Path) -> bool:
    """Whether the host's Python sees a CUDA device."""
    probe = [str(python), "-c", "import sys, torch; sys.exit(0 if torch.cuda.is_available() else 1)"]
    return subprocess.run(probe, capture_output=True, check=False).returncode == 0


def _python_of(root: Path) -> Path | None:
    named = os.environ.get("COMFYUI_PYTHON")
    if named:
        candidates = [Path(named).expanduser()]
    else:
        homes = [root / "venv", root / ".venv", DEFAULT_ROOT / "venv", DEFAULT_ROOT / ".venv"]
        candidates = [home / tail for home in homes for tail in ("bin/python", "Scripts/python.exe")]
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def _version_of(root: Path) -> str:
    source = root / "comfyui_version.py"
    found = re.search(r'__version__ = "([^"]+)"', source.read_text()) if source.is_file() else None
    return found.group(1) if found else "0"
