"""The architectures by name, and one recogniser a file for those whose published checkpoints carry no record."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

from torch import nn

from ...conditions.labels import class_names
from ...files import FileError
from ...networks.dit import DiT, DiTConfig
from ...networks.maskdit import MaskDiT, MaskDiTConfig
from ...networks.mdt import MDT, MDTConfig
from ...networks.microdit import MicroDiT, MicroDiTConfig
from ...networks.nitro_dit import NitroDiT, NitroDiTConfig
from ...networks.nitro_mmdit import NitroMMDiT, NitroMMDiTConfig
from ...networks.prx import PRX, PRXConfig
from ...networks.sprint import Sprint, SprintConfig
from ...networks.srdit import SRDiT, SRDiTConfig
from ...networks.trdit import TRDiT, TRDiTConfig
from ...networks.xut import XUT, XUTConfig
from ..clues import Clues
from ..spec import ModelSpec
from . import dit, maskdit, mdt, microdit, nitro, prx, sprint, srdit, xut


class Architecture(NamedTuple):
    """`recognise` gives the spec of a checkpoint of this architecture, without title and labels, and None for any
    other. `rename` takes a key of another published layout to the network's own. `extra` tells the keys of tensors that
    published files have and the network does not need."""

    config: type
    network: type[nn.Module]
    recognise: Callable[[Clues], ModelSpec | None] = lambda clues: None
    rename: Callable[[str], str] = str
    extra: Callable[[str], object] = lambda key: False


ARCHITECTURES: dict[str, Architecture] = {
    "dit": Architecture(DiTConfig, DiT, dit.recognise),
    "maskdit": Architecture(MaskDiTConfig, MaskDiT, maskdit.recognise),
    "mdt": Architecture(MDTConfig, MDT, mdt.recognise, extra=mdt.EXTRA.match),
    "microdit": Architecture(MicroDiTConfig, MicroDiT, microdit.recognise),
    "nitro-dit": Architecture(NitroDiTConfig, NitroDiT, nitro.recognise_dit, extra=nitro.EXTRA.match),
    "nitro-mmdit": Architecture(NitroMMDiTConfig, NitroMMDiT, nitro.recognise_mmdit, extra=nitro.EXTRA.match),
    "prx": Architecture(PRXConfig, PRX, prx.recognise, prx.rename),
    "sprint": Architecture(SprintConfig, Sprint, sprint.recognise, extra=sprint.EXTRA.match),
    "srdit": Architecture(SRDiTConfig, SRDiT, srdit.recognise, extra=srdit.EXTRA.match),
    "trdit": Architecture(TRDiTConfig, TRDiT),  # its weights are not public
    "xut": Architecture(XUTConfig, XUT, xut.recognise, xut.rename, xut.EXTRA.match),
}

# what people load as a model by mistake, told by parts of keys
FOREIGN = {
    "LoRA": ("lora_A.", "lora_down.", "lora_up."),
    "U-Net": ("input_blocks.", "time_embedding."),
    "VAE": ("decoder.conv_in.", "first_stage_model."),
    "text encoder": ("text_model.", "encoder.block.0.", "embed_tokens."),
}


class ForeignFile(FileError):
    """Weights of something else than a diffusion transformer; `kind` is a key of FOREIGN."""

    def __init__(self, kind: str):
        super().__init__(f"this is a {kind}, not a diffusion transformer.")
        self.kind = kind


def architecture_of(config: Any) -> str:
    """The name of the architecture whose sizes `config` holds."""
    return next(name for name, entry in ARCHITECTURES.items() if isinstance(config, entry.config))


def recognise(clues: Clues) -> ModelSpec:
    """The spec of a checkpoint that does not carry one; ForeignFile if it is one of something else, FileError with
    the known families if none fits."""
    for entry in ARCHITECTURES.values():
        spec = entry.recognise(clues.renamed(entry.rename))
        if spec is not None:
            return replace(spec, title=clues.name, labels=() if spec.text else class_names(spec.config.num_classes))
    for kind, marks in FOREIGN.items():
        if any(mark in key for key in clues.shapes for mark in marks):
            raise ForeignFile(kind)
    raise FileError(
        f"not a checkpoint of a known architecture ({', '.join(ARCHITECTURES)}); its first keys are "
        f"{', '.join(list(clues.shapes)[:4]) or 'none'}."
    )
