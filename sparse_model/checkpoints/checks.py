"""Whether what a file says of itself can be true, found before anything is allocated for it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict

import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from ..conditions.text import Text
from ..files import FileError
from .spec import ModelSpec

LARGEST = 1 << 20  # of any number that describes a network
LARGEST_SIDE = 1 << 14  # of an input


@contextmanager
def limited(parameters: int) -> Iterator[None]:
    """FileError once a network that this thread builds in the block has more parameters than that."""
    thread, count = threading.get_ident(), 0

    def registered(*_: object) -> None:
        nonlocal count
        count += threading.get_ident() == thread
        if count > parameters:
            raise FileError("it says that it has far more layers than it holds; the file is damaged.")

    hook = register_module_parameter_registration_hook(registered)
    try:
        yield
    finally:
        hook.remove()


def check_sizes(spec: ModelSpec) -> None:
    """FileError if a number of the spec's config cannot be one of a network, or if its routes or labels do not fit."""
    for name, value in asdict(spec.config).items():
        largest = LARGEST_SIDE if name == "input_size" else LARGEST
        for number in value if isinstance(value, tuple) else (value,):
            if not 0 <= number <= largest:
                raise FileError(f"it says that its {name} is {number}, which cannot be; the file is damaged.")
    try:
        list(spec.sparsity.stretches(spec.config.depth))
    except ValueError as error:
        raise FileError(f"its route does not fit: {error}") from error
    if spec.labels and len(spec.labels) != spec.config.num_classes:
        raise FileError(f"it names {len(spec.labels)} labels but has {spec.config.num_classes} classes.")


def check_runs(spec: ModelSpec, network: nn.Module) -> None:
    """FileError unless the network, on the meta device, runs at its own size, and its noise levels are numbers."""
    config = spec.config

    def empty(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.empty(*shape, device="meta", dtype=dtype)

    try:
        if spec.text is None:
            condition = empty(1, config.num_classes)
        else:
            condition = Text(empty(1, spec.text.length, spec.text.width), empty(1, spec.text.length, dtype=torch.bool))
        x = empty(1, config.in_channels, config.input_size, config.input_size)
        with torch.no_grad():
            fits = network(x, empty(1), condition).shape == x.shape
    except Exception as error:
        raise FileError("the sizes that it says it has do not fit one another; the file is damaged.") from error
    if not fits:
        raise FileError("the sizes that it says it has do not fit its input; the file is damaged.")
    try:
        levels = spec.prediction.sigmas(spec.steps)
        ordinary = bool(levels[0] > 0) and bool(levels.isfinite().all())
    except (OverflowError, ZeroDivisionError):
        ordinary = False
    if not ordinary:
        raise FileError("the noise levels that it asks for are not numbers; the file is damaged.")
