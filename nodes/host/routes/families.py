"""The families of the host's transformers that can be routed, by the names of their classes."""

from collections.abc import Iterable

from torch import nn

from ....sparse_model.method.sparsity import Sparsity
from .family import Family, Stage
from .image_families import IMAGE_FAMILIES
from .video_families import VIDEO_FAMILIES

FAMILIES = IMAGE_FAMILIES + VIDEO_FAMILIES
BY_CLASS = {name: family for family in FAMILIES for name in family.networks}


def family_of(network: nn.Module) -> Family:
    """The family of a host's network; ValueError that names the families that work."""
    name = type(network).__name__
    if name in BY_CLASS:
        return BY_CLASS[name]
    known = ", ".join(family.name for family in FAMILIES)
    kind = "a U-Net" if "unet" in name.lower() else "an architecture that this node does not know"
    raise ValueError(f"Token Route cannot route {name}, {kind}; it works with {known}, and models of this pack.")


def listed(blocks: nn.ModuleDict | Iterable[nn.Module]) -> list[tuple[str, nn.Module]]:
    """(name among its neighbours, block) of the blocks of a stage, which stand in a list or in a dictionary."""
    if isinstance(blocks, nn.ModuleDict):
        return list(blocks.items())
    return [(str(number), block) for number, block in enumerate(blocks)]


def numbered_blocks(network: nn.Module, family: Family) -> list[tuple[str, Stage, nn.Module]]:
    """(path below the network, stage, block) of every block, in the order and numbering of the trainers."""
    return [
        (f"{stage.path}.{name}", stage, block)
        for stage in family.stages
        for name, block in listed(getattr(network, stage.path))[stage.part(network)]
    ]


def placed(network: nn.Module, family: Family, sparsity: Sparsity) -> list[tuple[str, Stage, int | None, bool]]:
    """(path, stage, route or None, last of its route) of every block in front of the first route and in a route."""
    blocks, found = numbered_blocks(network, family), []

    def ends(i: int, layers: range) -> bool:
        return i == layers.stop - 1 or blocks[i][1].anew != blocks[i + 1][1].anew

    for layers, route in sparsity.stretches(len(blocks)):
        # Branches differ from the first route on: only blocks in front of it can be shared.
        if route is not None or not found:
            found += [(*blocks[i][:2], route, route is not None and ends(i, layers)) for i in layers]
    return found
