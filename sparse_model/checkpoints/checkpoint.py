"""Checkpoint files: recognised, checked and loaded without ever running code from them; written atomically."""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..files import FileError, printable, sentence
from ..networks.layers import TORCH, Backend
from ..networks.precision import stored_as
from ..tensors import Stored, finite, opened
from ..writing import whole_file
from .checks import check_runs, check_sizes, limited
from .clues import Clues
from .families import ARCHITECTURES, recognise
from .metadata import KEY, RECORD, from_metadata, from_tensor, to_metadata, to_tensor
from .quantised import in_int8, multiplied_out
from .source import find
from .spec import ModelSpec

# what training leaves beside weights and no network needs
LEFT_OVER = re.compile(r"^(optimizer|opt|lr_scheduler|scheduler)\.|(^|\.)(num_updates|n_averaged|step|decay)$")

HOSTS = "model.diffusion_model."  # what ComfyUI writes in front of the keys of a network


class CheckpointError(ValueError):
    """A file that cannot become a network, in one sentence that names the file and what is wrong."""


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Whatever goes wrong with a file in this block is a CheckpointError."""
    try:
        yield
    except CheckpointError:
        raise
    except Exception as error:
        raise CheckpointError(f"{printable(path.name)}: {sentence(error)}") from error


@dataclass(frozen=True)
class Checkpoint:
    """An open file: what it is, and its tensors under the network's own keys, complete and of the network's shapes."""

    path: Path
    spec: ModelSpec
    tensors: Mapping[str, Stored]

    @property
    def parameters(self) -> int:
        return sum(tensor.count for tensor in self.tensors.values())

    @property
    def dtype(self) -> torch.dtype:
        """The type that most of the numbers have."""
        counts = Counter()
        for tensor in self.tensors.values():
            counts[tensor.dtype] += tensor.count
        return counts.most_common(1)[0][0]

    def each(
        self, dtype: Callable[[str], torch.dtype | None] = lambda _: None, between: Callable[[], None] = lambda: None
    ) -> Iterator[tuple[str, Tensor]]:
        """(key, values on the CPU) one after another, floating point in the `dtype` of the key if it has one, each
        checked to be finite. `between` is called before each of them and may raise to stop. CheckpointError for a
        damaged tensor."""
        for key, stored in self.tensors.items():
            between()
            with explained(self.path):
                value = stored.read(dtype(key))
                if value.is_floating_point() and not finite(value):
                    raise FileError(f"{key} holds values that are not finite; the file is damaged.")
            yield key, value


@contextmanager
def open_checkpoint(path: Path | str, values: bool = True) -> Iterator[Checkpoint]:
    """The checkpoint at `path`: a file, an index of shards, one of the shards, or a diffusers folder.

    The spec comes from the file's metadata, or else from keys, shapes and, where two families share both, the name.
    Without `values` it is only looked at: nothing more of a file is read than that needs (`tensors.opened`).
    CheckpointError unless it is a whole checkpoint of a known architecture.
    """
    path = Path(path)
    with ExitStack() as stack:
        with explained(path):
            source = find(path)
            contents = stack.enter_context(opened(source.files, values))
            tensors = multiplied_out(contents)
            if HOSTS + RECORD in tensors:  # beside a text encoder or a VAE
                tensors = {key.removeprefix(HOSTS): value for key, value in tensors.items() if key.startswith(HOSTS)}
            metadata = from_tensor(tensors.pop(RECORD)) if RECORD in tensors else contents.metadata
            spec = from_metadata(metadata) if KEY in metadata else recognise(Clues.of(tensors, source, contents))
            check_sizes(spec)
            with limited(2 * len(tensors) + 1000):
                network = build(spec, replace(TORCH, device="meta"))
            checkpoint = Checkpoint(path, spec, _matching(tensors, spec, network))
            check_runs(spec, network)
        yield checkpoint


def read(path: Path | str) -> tuple[ModelSpec, dict[str, Tensor]]:
    """What a checkpoint is, and its weights on the CPU under the architecture's own keys."""
    with open_checkpoint(path) as checkpoint:
        return checkpoint.spec, dict(checkpoint.each())


def load(path: Path | str, backend: Backend = TORCH) -> tuple[nn.Module, ModelSpec]:
    """A network ready to sample with, in the backend's precision (float32 where that is None)."""
    with open_checkpoint(path) as checkpoint:
        network = build(checkpoint.spec, replace(backend, device="meta"))
        fill(network, checkpoint, backend.dtype or torch.float32, backend.device or "cpu")
        return network.eval().requires_grad_(False), checkpoint.spec


def fill(
    network: nn.Module,
    checkpoint: Checkpoint,
    dtype: torch.dtype,
    device: torch.device | str,
    between: Callable[[], None] = lambda: None,
) -> None:
    """Puts a checkpoint's weights into a network in place of its own, in `dtype` but for what has to be more exact, one
    at a time: at no moment are there two copies of more than one tensor."""
    state = {key: value.to(device) for key, value in checkpoint.each(stored_as(network, dtype), between)}
    network.load_state_dict(state, assign=True)


def build(spec: ModelSpec, backend: Backend = TORCH) -> nn.Module:
    """The network of a spec, its weights not yet loaded."""
    return ARCHITECTURES[spec.architecture].network(spec.config, spec.sparsity, backend)


def save(state: Mapping[str, Tensor], spec: ModelSpec, path: Path, dtype: torch.dtype | None = None) -> None:
    """Writes a safetensors file with metadata, floating point in `dtype` if one is given (of int8, matrices alone, with
    a scale for each row); the file appears whole or not at all, then OSError says why."""
    if dtype is torch.int8:
        state, dtype = in_int8(state), None
    tensors = {
        name: (value.to(dtype) if dtype and value.is_floating_point() else value).contiguous().cpu()
        for name, value in state.items()
    }
    with whole_file(path) as temporary:
        save_file(tensors, temporary, metadata=to_metadata(spec))


def describe(path: Path, spec: ModelSpec) -> None:
    """Writes into a safetensors file what it is, in place of what it said before. Its tensors stay as they are, in
    whatever precision and beside whatever else; OSError if it cannot be written."""
    with safe_open(path, "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118, of a file that is no dictionary
        metadata = file.metadata() or {}
    for key in tensors:
        if key.endswith(RECORD):  # what a host saved says it here
            tensors[key] = to_tensor(spec)
    with whole_file(path) as temporary:
        save_file(tensors, temporary, metadata | to_metadata(spec))


def _matching(tensors: Mapping[str, Stored], spec: ModelSpec, network: nn.Module) -> dict[str, Stored]:
    """The tensors that the spec's network takes, checked. FileError if any is missing or of another shape, and if
    others are left over that the network might need."""
    architecture = ARCHITECTURES[spec.architecture]
    renamed = {architecture.rename(key): tensor for key, tensor in tensors.items()}
    if len(renamed) < len(tensors):
        raise FileError("it holds some tensors twice, under the names of two layouts.")
    tensors, wanted = renamed, network.state_dict()
    missing = [key for key in wanted if key not in tensors]
    if missing:
        raise FileError(
            f"it lacks {len(missing)} of the {len(wanted)} tensors of a {spec.architecture} network, such as "
            f"{missing[0]}."
        )
    strange = [key for key in tensors if key not in wanted and not (LEFT_OVER.search(key) or architecture.extra(key))]
    if strange:
        raise FileError(
            f"it holds {len(strange)} tensors that a {spec.architecture} network does not know, such as {strange[0]}; "
            "it may be a variant or quantised, and would give wrong pictures without them."
        )
    for key, value in wanted.items():
        if tensors[key].shape != tuple(value.shape):
            raise FileError(f"{key} has the shape {list(tensors[key].shape)}, expected {list(value.shape)}.")
        if value.is_floating_point() and not tensors[key].dtype.is_floating_point:
            raise FileError(f"{key} holds whole numbers: it is quantised in a form that is not read; use fp16 or bf16.")
    return {key: tensors[key] for key in wanted}
