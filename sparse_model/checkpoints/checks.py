"""Whether what a file says of itself can be true, found before anything is allocated for it."""

from dataclasses import asdict

import torch
from torch import nn

from ..conditions.text import Text
from ..files import FileError
from .spec import ModelSpec

LARGEST = 1 << 20  # of any number that describes a network
LARGEST_SIDE = 1 << 14  # of an input


def check_sizes(spec: ModelSpec, tensors: int) -> None:
    """FileError if a number of the spec's config cannot be one of a file of so many tensors, or if its routes or labels
    do not fit the network."""
    for name, value in asdict(spec.config).items():
        largest = LARGEST_SIDE if name == "input_size" else tensors if "depth" in name else LARGEST
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
    """FileError unless the network, on the meta device, runs at its own size: sizes that do not divide one another."""
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
