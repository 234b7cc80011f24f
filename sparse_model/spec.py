"""Everything a checkpoint says about itself besides its weights, and the metadata that carries it in safetensors."""

import json
from dataclasses import asdict, dataclass, fields
from typing import Any

from .models import ARCHITECTURES
from .prediction import KINDS, Prediction
from .schedule import Curve, Schedule
from .sparsity import Sparsity

KEY = "sparse_model"


@dataclass(frozen=True)
class ModelSpec:
    """`config` has the architecture's sizes, `labels` one name per class, `latent` what the channels are ("pixels",
    "sd"), `schedule` and `steps` are recommended settings where somebody measured them."""

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
        }
        size = self.config.input_size * (1 if self.latent == "pixels" else 8)
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
            )
        except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
            raise ValueError(f"its '{KEY}' metadata is damaged ({type(error).__name__}: {error})") from error


def _build(cls: type, values: dict[str, Any]) -> Any:
    known = {field.name for field in fields(cls)}
    return cls(**{key: value for key, value in values.items() if key in known})


def schedule_to_dict(schedule: Schedule) -> dict[str, Any]:
    return asdict(schedule)


def schedule_from_dict(values: dict[str, Any]) -> Schedule:
    curves = {
        name: Curve(tuple((float(t), float(v)) for t, v in value["keyframes"]), value["interpolation"])
        for name, value in values.items()
        if isinstance(value, dict)
    }
    return _build(Schedule, {**values, **curves})
