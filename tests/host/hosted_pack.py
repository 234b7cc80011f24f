"""Inside a host's Python, without a server: the pack loaded by path under a name that no import statement could spell,
as the host does it."""

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

NAME = "/a/sparse-guidance"


def load_pack(checkout: str, pack: str, *flags: str) -> Callable[[str], ModuleType]:
    """A function from the dotted name of a part of the pack to its module; comfy can be imported from here on.

    COMFYUI_FLAGS names the device, as for the servers (hosts.py)."""
    sys.argv = ["main.py", *os.environ.get("COMFYUI_FLAGS", "--cpu").split(), *flags]
    sys.path.insert(0, checkout)
    import comfy.options

    comfy.options.enable_args_parsing()
    spec = importlib.util.spec_from_file_location(NAME, Path(pack) / "__init__.py", submodule_search_locations=[pack])
    module = importlib.util.module_from_spec(spec)
    sys.modules[NAME] = module
    spec.loader.exec_module(module)
    return lambda name: importlib.import_module(f"{NAME}.{name}")
