"""Everything a checkpoint says about itself apart from its weights."""

import re
from dataclasses import dataclass
from typing import Any

from ..conditions.text import TextSpec
from ..files import printable
from ..method.prediction import Epsilon, Flow, Prediction
from ..method.schedule import Schedule
from ..method.sparsity import Sparsity
from ..networks.dit import DiTConfig
from ..networks.trdit import TRDiTConfig

LATENTS = {"pixels": 1, "sd": 8, "sdxl": 8, "flux": 8, "dcae": 32, "kl-f8-d16": 8, "eq-sdxl": 8, "invae": 16}
"""What the channels of a network's input can be, and how many pixels of the picture stand behind one of theirs."""


@dataclass(frozen=True)
class Setting:
    """Settings that a file offers by name: a schedule, and the steps that it was found for."""

    name: str
    schedule: Schedule
    steps: int

    def __str__(self) -> str:
        return f"{self.name} ({self.steps} steps)"


def _shown_name(name: str) -> str:
    """A setting's name out of "'Fast'" or "fast (10 steps)"."""
    return re.sub(r"\s*\(\d+ steps\)$", "", name.strip("'\" ").casefold())


@dataclass(frozen=True)
class ModelSpec:
    """`architecture` names the network and `config` has its sizes (families.ARCHITECTURES); `latent` says what the
    channels of its input are (a key of LATENTS). `text` describes the prompts of a text-conditional model; a
    class-conditional one has None, and `labels` with one name per class. `schedule` and `steps` are recommended
    settings where somebody measured or published them, `settings` others to choose from by name. `note` is what people
    should know of how the file was read; it is not kept in metadata."""

    architecture: str
    config: Any
    prediction: Prediction
    sparsity: Sparsity = Sparsity()
    labels: tuple[str, ...] = ()
    latent: str = "sd"
    schedule: Schedule | None = None
    steps: int = 40
    title: str = ""
    license: str = ""
    text: TextSpec | None = None
    note: str = ""
    settings: tuple[Setting, ...] = ()

    def setting(self, name: str) -> Setting:
        """The settings of a name as it is spelled, in another case, or as texts show it: in quotes, with its steps.
        ValueError that says which ones there are."""
        for spelled in (str, str.casefold, _shown_name):
            for setting in self.settings:
                if spelled(setting.name) == spelled(name):
                    return setting
        known = printable(", ".join(f"'{setting.name}'" for setting in self.settings), 300)
        raise ValueError(
            f"This model's file has no settings '{printable(name, 80)}'; "
            + (f"it offers {known}." if known else "it names none, so leave this empty.")
        )

    def unlike(self, weaker: "ModelSpec") -> str:
        """What keeps the predictions of a weaker model from guiding this one, in a few words: its network may be of any
        architecture and size (arXiv 2406.02507), but both have to predict the same of the same. "" if they do."""
        for name in ("input_size", "in_channels"):
            own, other = (getattr(spec.config, name) for spec in (self, weaker))
            if own != other:
                return f"its {name.replace('_', ' ')} is {other} instead of {own}"
        for name in ("prediction", "latent", "text"):
            own, other = (getattr(spec, name) for spec in (self, weaker))
            if own != other:
                return f"its {name} is {other} instead of {own}"
        return "it has other labels" if self.labels != weaker.labels else ""

    @property
    def ratio(self) -> int:
        """Pixels of the picture, a side, per pixel of the network's input."""
        return LATENTS[self.latent]

    @classmethod
    def published(cls, name: str, sparsity: Sparsity = Sparsity()) -> "ModelSpec":
        """The spec of a published size, "SiT-XL/2", "DiT-B/4" or "TR-DiT-2.5B" (with prompts of 128 tokens), for
        arithmetic without a checkpoint."""
        if name == "TR-DiT-2.5B":
            text = TextSpec("", TRDiTConfig.text_width, 128)
            return cls("trdit", TRDiTConfig(), Flow(clean_time=1), sparsity, latent="flux", text=text)
        family, _, size = name.partition("-")
        if family not in ("DiT", "SiT"):
            raise ValueError(f"architecture '{name}' is unknown; use a name such as SiT-XL/2, DiT-B/4 or TR-DiT-2.5B.")
        return cls("dit", DiTConfig.named(size), Flow() if family == "SiT" else Epsilon(), sparsity)

    def describe(self) -> str:
        """One line for people: architecture, sizes, route, prediction and labels."""
        config = self.config
        skipped = ", ".join(f"layers {r.start} to {r.end} routed at ratio {r.ratio:g}" for r in self.sparsity.routes)
        if self.sparsity.mask is not None:
            skipped = f"tokens masked at ratio {self.sparsity.mask:g}"
        kind = type(self.prediction).__name__.lower()
        output = f" of {self.prediction.output}" if hasattr(self.prediction, "output") else ""
        return (
            f"{self.architecture}, {config.depth} layers of width {config.width}, patch {config.patch_size}, input "
            f"{config.in_channels} x {config.input_size} x {config.input_size} ({self.latent}), "
            f"{(config.input_size // config.patch_size) ** 2} tokens; {skipped or 'no token route'}; {kind}{output}; "
            f"{self.text.describe() if self.text else f'{config.num_classes} labels'}"
        )
