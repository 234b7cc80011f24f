"""A spec as the metadata of a safetensors file, and back."""

import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from ..conditions.text import TextSpec
from ..method.prediction import KINDS
from ..method.schedule import Curve, Schedule
from ..method.sparsity import Sparsity
from .families import ARCHITECTURES
from .spec import ModelSpec

KEY = "sparse_model"


def to_metadata(spec: ModelSpec) -> dict[str, str]:
    """String keys and values for a safetensors header: one JSON record and the ModelSpec 1.0 keys."""
    kind = next(name for name, cls in KINDS.items() if isinstance(spec.prediction, cls))
    record = {
        "architecture": spec.architecture,
        "config": asdict(spec.config),
        "prediction": {"kind": kind, **asdict(spec.prediction)},
        "sparsity": spec.sparsity.to_dict(),
        "labels": list(spec.labels),
        "latent": spec.latent,
        "schedule": None if spec.schedule is None else schedule_to_dict(spec.schedule),
        "steps": spec.steps,
        "text": None if spec.text is None else asdict(spec.text),
    }
    size = spec.config.input_size * spec.ratio
    return {
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": f"sparse-{spec.architecture}",
        "modelspec.implementation": "sparse_model",
        "modelspec.title": spec.title or spec.architecture,
        "modelspec.license": spec.license,
        "modelspec.resolution": f"{size}x{size}",
        "modelspec.prediction_type": "epsilon" if kind == "eps" else kind,
        KEY: json.dumps(record),
    }


def from_metadata(metadata: Mapping[str, str]) -> ModelSpec:
    """The spec that `to_metadata` wrote; ValueError if the record is damaged or of a newer architecture."""
    try:
        record = json.loads(metadata[KEY])
        name = record["architecture"]
        if name not in ARCHITECTURES:
            raise ValueError(f"its architecture '{name}' is unknown here; known: {', '.join(ARCHITECTURES)}")
        prediction = dict(record["prediction"])
        schedule = record.get("schedule")
        return ModelSpec(
            architecture=name,
            config=_build(ARCHITECTURES[name].config, record["config"]),
            prediction=_build(KINDS[prediction.pop("kind")], prediction),
            sparsity=Sparsity.from_dict(record["sparsity"]),
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


def schedule_to_dict(schedule: Schedule) -> dict[str, Any]:
    return asdict(schedule)


def schedule_from_dict(values: Mapping[str, Any]) -> Schedule:
    """The schedule that `schedule_to_dict` gave; KeyError, TypeError or ValueError for anything else."""
    curves = {
        name: Curve(tuple((float(t), float(v)) for t, v in value["keyframes"]), value["interpolation"])
        for name, value in values.items()
        if isinstance(value, dict)
    }
    return _build(Schedule, {**values, **curves})


def _build(cls: type, values: Mapping[str, Any]) -> Any:
    """A dataclass from JSON: unknown fields are left out, lists are tuples."""
    names = {field.name for field in fields(cls)}
    return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items() if k in names})
