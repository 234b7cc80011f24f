"""What can be told from a file that carries no record of its own."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from ..files import FileError
from ..tensors import Contents, Stored
from .source import Source

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Clues:
    """`shapes` of the file's tensors by key, the `name` that people call it by, the `wrappers` that training put around
    the weights and the `metadata` (tensors.Contents), and the `settings` of the pipeline around the file
    (source.SETTINGS), each where it is there."""

    shapes: Mapping[str, Shape]
    name: str = ""
    wrappers: tuple[str, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, tensors: Mapping[str, Stored], source: Source, contents: Contents) -> "Clues":
        shapes = {key: tensor.shape for key, tensor in tensors.items()}
        return cls(shapes, source.name, contents.wrappers, contents.metadata, source.settings)

    def renamed(self, rename: Callable[[str], str]) -> "Clues":
        return replace(self, shapes={rename(key): shape for key, shape in self.shapes.items()})

    def have(self, *keys: str) -> bool:
        return all(key in self.shapes for key in keys)

    def shape(self, key: str, dimensions: int) -> Shape:
        """The shape of a tensor; FileError if it is not there or has another number of dimensions."""
        shape = self.shapes.get(key)
        if shape is None:
            raise FileError(f"it lacks the tensor {key}.")
        if len(shape) != dimensions or 0 in shape:
            raise FileError(f"{key} has the shape {list(shape)}, expected {dimensions} dimensions.")
        return shape

    def layers(self, prefix: str) -> int:
        """How many layers the keys number after `prefix`, such as "blocks."; FileError if numbers are left out."""
        words = {key.removeprefix(prefix).split(".")[0] for key in self.shapes if key.startswith(prefix)}
        if words != {str(number) for number in range(len(words))} or not words:
            raise FileError(f"its layers {prefix}\u2026 are not numbered from 0 without gaps.")
        return len(words)
