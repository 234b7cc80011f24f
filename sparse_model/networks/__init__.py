"""The architectures: one file each, readable top to bottom, and one line in this table."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from torch import nn

from . import dit, maskdit, microdit, prx, sprint, trdit


class Architecture(NamedTuple):
    """`infer(shapes, name)` gives a ModelSpec's fields for a checkpoint called `name` that carries no metadata, or None
    if it is not one of this architecture. `rename` takes the keys of another published layout to the network's."""

    config: type
    network: type[nn.Module]
    infer: Callable[[Mapping[str, tuple[int, ...]], str], dict[str, Any] | None]
    rename: Callable[[str], str] = str


ARCHITECTURES: dict[str, Architecture] = {
    "dit": Architecture(dit.DiTConfig, dit.DiT, dit.infer),
    "maskdit": Architecture(maskdit.MaskDiTConfig, maskdit.MaskDiT, maskdit.infer),
    "microdit": Architecture(microdit.MicroDiTConfig, microdit.MicroDiT, microdit.infer),
    "prx": Architecture(prx.PRXConfig, prx.PRX, prx.infer, prx.rename),
    "sprint": Architecture(sprint.SprintConfig, sprint.Sprint, sprint.infer),
    "trdit": Architecture(trdit.TRDiTConfig, trdit.TRDiT, trdit.infer),
}
