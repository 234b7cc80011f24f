"""What can be told from a file that carries no record of its own."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Clues:
    """`shapes` of the file's tensors by key, the `name` that people call it by, and the `settings` of the pipeline
    around it (files.SETTINGS), each where it is there."""

    shapes: Mapping[str, Shape]
    name: str = ""
    settings: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, state: Mapping[str, Tensor], name: str = "", settings: Mapping[str, float] | None = None) -> "Clues":
        return cls({key: tuple(value.shape) for key, value in state.items()}, name, settings or {})

    def have(self, *keys: str) -> bool:
        return all(key in self.shapes for key in keys)

    def layers(self, prefix: str) -> int:
        """How many layers the keys number after `prefix`, such as "blocks."."""
        return 1 + max(int(key.removeprefix(prefix).split(".")[0]) for key in self.shapes if key.startswith(prefix))
