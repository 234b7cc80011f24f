"""Inside a host's Python, without a server: the pack loaded by path under a name that no import statement could spell,
as the host does it."""

import importlib
import importlib.util
import json
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

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


def report(cases: Mapping[str, Callable[[], Any]], wanted: Sequence[str]) -> None:
    """Prints the names of the cases to come, all if none are wanted, then a line of JSON for each: its name, and its
    result or its error."""
    chosen = {name: case for name, case in cases.items() if not wanted or name in wanted}
    print(json.dumps(list(chosen)), flush=True)
    for name, case in chosen.items():
        try:
            outcome = {"name": name, "result": case()}
        except Exception:
            outcome = {"name": name, "error": traceback.format_exc()[-4000:]}
        print(json.dumps(outcome), flush=True)
