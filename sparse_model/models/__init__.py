"""The architectures: one file each, readable top to bottom, and one line in this table."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from torch import nn

from . import dit, maskdit, sprint


class Architecture(NamedTuple):
    """`infer(shapes, file_name)` gives a ModelSpec's fields for a checkpoint without metadata, or None if it is not
    one of this architecture."""

    config: type
    network: type[nn.Module]
    infer: Callable[[Mapping[str, tuple[int, ...]], str], dict[str, Any] | None]


ARCHITECTURES: dict[str, Architecture] = {
    "dit": Architecture(dit.DiTConfig, dit.DiT, dit.infer),
    "maskdit": Architecture(maskdit.MaskDiTConfig, maskdit.MaskDiT, maskdit.infer),
    "sprint": Architecture(sprint.SprintConfig, sprint.Sprint, sprint.infer),
}
