"""What a model of the host is made of, whatever stands in its place while it is loaded."""

from collections.abc import Mapping
from typing import Any


def plain(model: Any, replaced: Mapping[str, Any], name: str) -> Any:
    """The model's own object at a dotted name: what object patches have `replaced`, by name, and what is compiled.

    The host's `get_model_object` reads the rest of a name off whatever is loaded, which can be another graph's.
    """
    found, path = model, ""
    for part in name.split("."):
        path = f"{path}.{part}" if path else part
        found = replaced[path] if path in replaced else getattr(found, part)
        found = getattr(found, "_orig_mod", found)
    return found
