"""The architectures: one file each, readable top to bottom, and one line in this table."""

from typing import NamedTuple

from torch import nn

from .dit import DiT, DiTConfig


class Architecture(NamedTuple):
    config: type
    network: type[nn.Module]


ARCHITECTURES: dict[str, Architecture] = {
    "dit": Architecture(DiTConfig, DiT),
}
