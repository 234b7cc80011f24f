"""Everything a checkpoint says about itself besides its weights, and the metadata that carries it in safetensors."""

import json
from dataclasses import asdict, dataclass, fields
from typing import Any

from ..conditions.text import TextSpec
from ..method.prediction import KINDS, Epsilon, Flow, Prediction
from ..method.schedule import Curve, Schedule
from ..method.sparsity import Sparsity
from ..networks import ARCHITECTURES
from ..networks.dit import DiTConfig
from ..networks.trdit import TRDiTConfig

KEY = "sparse_model"
LATENTS = {"pixels": 1, "sd": 8, "sdxl": 8, "flux": 8, "dcae": 32}
"""What the channels of a network's input can be, and how many pixels of the picture stand behind one of theirs."""


@dataclass(frozen=True)
class ModelSpec:
    """`config` has the architecture's sizes, `latent` says what the channels are (a key of LATENTS). `text` describes
    the prompts of a text-conditional model; a class-conditional one has None, and `labels` with one name per class.
    `schedule` and `steps` are recommended settings where somebody measured or published them. `note` is what people
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

    def to_metadata(self) -> dict[str, str]:
        """String keys and values for a safetensors header: one JSON record and the ModelSpec 1.0 keys."""
        kind = next(name for name, cls in KINDS.items() if isinstance(self.prediction, cls))
        record = {
            "architecture": self.architecture,
            "config": asdict(self.config),
            "prediction": {"kind": kind, **asdict(self.prediction)},
            "sparsity": json.loads(self.sparsity.to_json()),
            "labels": list(self.labels),
            "latent": self.latent,
            "schedule": None if self.schedule is None else schedule_to_dict(self.schedule),
            "steps": self.steps,
            "text": None if self.text is None else asdict(self.text),
        }
        size = self.config.input_size * self.ratio
        return {
            "modelspec.sai_model_spec": "1.0.0",
            "modelspec.architecture": f"sparse-{self.architecture}",
            "modelspec.implementation": "sparse_model",
            "modelspec.title": self.title or self.architecture,
            "modelspec.license": self.license,
            "modelspec.resolution": f"{size}x{size}",
            "modelspec.prediction_type": "epsilon" if kind == "eps" else kind,
            KEY: json.dumps(record),
        }

    @classmethod
    def from_metadata(cls, metadata: dict[str, str]) -> "ModelSpec":
        """The spec that `to_metadata` wrote; ValueError if the record is damaged or of a newer architecture."""
        try:
            record = json.loads(metadata[KEY])
            name = record["architecture"]
            if name not in ARCHITECTURES:
                raise ValueError(f"its architecture '{name}' is unknown here; known: {', '.join(ARCHITECTURES)}")
            prediction = dict(record["prediction"])
            schedule = record.get("schedule")
            return cls(
                architecture=name,
                config=_build(ARCHITECTURES[name].config, record["config"]),
                prediction=_build(KINDS[prediction.pop("kind")], prediction),
                sparsity=Sparsity.from_json(json.dumps(record["sparsity"])),
                labels=tuple(record.get("labels", ())),
                latent=record.get("latent", "sd"),
                schedule=None if schedule is None else schedule_from_dict(schedule),
                steps=int(record.get("steps", 40)),
                title=metadata.get("modelspec.title", ""),
                license=metadata.get("modelspec.license", ""),
                text=None if record.get("text") is None else _build(TextSpec, record["text"]),
            )
        except (KeyError, TypeError, AttributeError, OverflowError, RecursionError, json.JSONDecodeError) as error:
            raise ValueError(f"its '{KEY}' metadata is damaged ({type(error).__name__}: {error})") from error

    def describe(self) -> str:
        """One line for people: architecture, sizes, route, prediction and labels."""
        config = self.config
        where = ", ".join(f"layers {r.start} to {r.end} routed at ratio {r.ratio:g}" for r in self.sparsity.routes)
        if self.sparsity.mask is not None:
            where = f"tokens masked at ratio {self.sparsity.mask:g}"
        kind = type(self.prediction).__name__.lower()
        output = f" of {self.prediction.output}" if hasattr(self.prediction, "output") else ""
        return (
            f"{self.architecture}, {config.depth} layers of width {config.width}, patch {config.patch_size}, input "
            f"{config.in_channels} x {config.input_size} x {config.input_size} ({self.latent}), "
            f"{(config.input_size // config.patch_size) ** 2} tokens; {where or 'no token route'}; {kind}{output}; "
            f"{self.text.describe() if self.text else f'{config.num_classes} labels'}"
        )


def _build(cls: type, values: dict[str, Any]) -> Any:
    """A dataclass from JSON: unknown fields are left out, lists are tuples."""
    known = {field.name for field in fields(cls)}
    return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items() if k in known})


def schedule_to_dict(schedule: Schedule) -> dict[str, Any]:
    return asdict(schedule)


def schedule_from_dict(values: dict[str, Any]) -> Schedule:
    curves = {
        name: Curve(tuple((float(t), float(v)) for t, v in value["keyframes"]), value["interpolation"])
        for name, value in values.items()
        if isinstance(value, dict)
    }
    return _build(Schedule, {**values, **curves})
