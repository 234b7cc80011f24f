"""Parts of nodes/host that need no host, imported without one."""

import importlib
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[2]


def hostless(name: str) -> ModuleType:
    """The module of a dotted name below the repository, such as "nodes.host.routes.rows".

    The pack and `nodes` become packages without running their __init__.py, which imports the host's schemas.
    """
    for package, folder in (("pack", ROOT), ("pack.nodes", ROOT / "nodes")):
        if package not in sys.modules:
            sys.modules[package] = ModuleType(package)
            sys.modules[package].__path__ = [str(folder)]
    return importlib.import_module(f"pack.{name}")
