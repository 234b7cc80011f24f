"""What other nodes add to a model that networks of this pack do not read, said instead of left out silently."""

import importlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

ATTENTION_NEEDED = "SelfAttentionGuidance"
"""The node whose patch records the attention of a U-Net, which it computes with afterwards."""


def check_foreign(transformer_options: dict[str, Any], control: Any, say: Callable[[str], None]) -> None:
    """Says which nodes have no effect on the call that is about to be made; ValueError for one that cannot do without.

    Of patches only who made them is known.
    """
    names = [maker(patch) for patch in _patches(transformer_options)]
    if ATTENTION_NEEDED in names:
        raise ValueError(
            f"{title(ATTENTION_NEEDED)} needs the attention of a U-Net (SD 1.5, SDXL), which this model does not "
            "have: take it out."
        )
    if transformer_options.get("rope_options"):
        names.append("ScaleROPE")
    if control is not None:
        names.append("Apply ControlNet")
    for name in dict.fromkeys(names):
        say(f"{title(name)} has no effect on this model, whose blocks and attention it does not know; take it out.")


def maker(patch: Any) -> str:
    """The node, or else the class or function, that a patch comes from."""
    function = getattr(patch, "func", patch)  # of a partial
    function = function if hasattr(function, "__qualname__") else type(function)
    return function.__qualname__.split(".")[0]


def _patches(transformer_options: dict[str, Any]) -> Iterator[Any]:
    for patches in (transformer_options.get("patches") or {}).values():
        yield from patches if isinstance(patches, Iterable) else [patches]
    for replaced in (transformer_options.get("patches_replace") or {}).values():
        yield from replaced.values()


def title(name: str) -> str:
    """What the editor calls a node."""
    return importlib.import_module("nodes").NODE_DISPLAY_NAME_MAPPINGS.get(name, name)  # the host's module of that name
