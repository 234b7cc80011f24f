"""Labels of the chunks of a batch, of which is known whether anybody goes by them."""

from collections.abc import Callable
from typing import Any

LABELS = "cond_or_uncond", "uuids"
"""Where the host's transformer_options say which prediction and which condition each chunk belongs to."""


READ = ("iter", "getitem", "len", "contains", "eq", "ne", "repr", "reversed", "add", "mul")
"""How a list is looked into, besides by its methods with names of their own."""


class Watched(list):
    """A list that adds to `readers` whenever somebody looks into it."""

    def __init__(self, labels: list, readers: list[str]):
        super().__init__(labels)
        self.readers = readers


def _telling(name: str) -> Callable[..., Any]:
    def method(self: Watched, *args: Any) -> Any:
        self.readers.append(name)
        return getattr(list, name)(self, *args)

    return method


for _name in (*(f"__{name}__" for name in READ), "copy", "count", "index"):
    setattr(Watched, _name, _telling(_name))


def watched(options: dict[str, Any], readers: list[str]) -> dict[str, Any]:
    """The same options with watched labels."""
    return {**options, **{name: Watched(options[name], readers) for name in LABELS if name in options}}
