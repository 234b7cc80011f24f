"""A spec as the metadata of a safetensors file, and back."""

import json
import math
import typing
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

import torch
from torch import Tensor

from ..conditions.text import TextSpec
from ..files import FileError
from ..method.prediction import KINDS, Flow, Prediction
from ..method.schedule import Curve, Schedule
from ..method.sparsity import Sparsity
from ..tensors import Stored
from .families import ARCHITECTURES
from .spec import LATENTS, ModelSpec, Setting

KEY = "sparse_model"
RECORD = "sparse_model.record"
"""The key of a tensor of bytes that holds the metadata in JSON, in files of programs that save tensors alone."""


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
        "settings": [
            {"name": setting.name, "schedule": schedule_to_dict(setting.schedule), "steps": setting.steps}
            for setting in spec.settings
        ],
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
    """The spec that `to_metadata` wrote; FileError if the record is damaged or of a newer architecture."""
    try:
        record = json.loads(metadata[KEY])
        name = record["architecture"]
        if name not in ARCHITECTURES:
            raise FileError(f"its architecture '{name}' is unknown here; known: {', '.join(ARCHITECTURES)}.")
        schedule = record.get("schedule")
        return ModelSpec(
            architecture=name,
            config=_build(ARCHITECTURES[name].config, record["config"]),
            prediction=_prediction(record["prediction"]),
            sparsity=Sparsity.from_dict(record["sparsity"]),
            labels=_labels(record.get("labels", [])),
            latent=_latent(record.get("latent", "sd")),
            schedule=None if schedule is None else schedule_from_dict(schedule),
            steps=_steps(record.get("steps", 40)),
            title=metadata.get("modelspec.title", ""),
            license=metadata.get("modelspec.license", ""),
            text=None if record.get("text") is None else _build(TextSpec, record["text"]),
            settings=_settings(record.get("settings", [])),
        )
    except FileError:
        raise
    except (KeyError, TypeError, AttributeError, OverflowError, RecursionError, json.JSONDecodeError) as error:
        raise FileError(f"its '{KEY}' metadata is damaged; download or convert it again.") from error
    except ValueError as error:  # of values of the right type that routes, schedules and predictions do not take
        raise FileError(f"its '{KEY}' metadata holds what cannot be: {error}") from error


def to_tensor(spec: ModelSpec) -> Tensor:
    """What RECORD holds: bytes [n]."""
    return torch.frombuffer(bytearray(json.dumps(to_metadata(spec)).encode()), dtype=torch.uint8)


def from_tensor(record: Stored) -> dict[str, str]:
    """The metadata that `to_tensor` wrote; FileError if it is something else."""
    try:
        metadata = json.loads(record.get().numpy().tobytes())
        if all(isinstance(word, str) for word in (*metadata, *metadata.values())):
            return metadata
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise FileError(f"its tensor '{RECORD}' is damaged; save it again.") from error
    raise FileError(f"its tensor '{RECORD}' is damaged; save it again.")


def schedule_to_dict(schedule: Schedule) -> dict[str, Any]:
    return asdict(schedule)


def schedule_from_dict(values: Mapping[str, Any]) -> Schedule:
    """The schedule that `schedule_to_dict` gave; KeyError, TypeError or ValueError for anything else."""
    curves = {name: _curve(value) for name, value in values.items() if isinstance(value, dict)}
    return _build(Schedule, {**values, **curves})


def _curve(values: Mapping[str, Any]) -> Curve:
    if not all(isinstance(point, list | tuple) and len(point) == 2 for point in values["keyframes"]):
        raise TypeError("keyframes are pairs of progress and value")
    points = tuple((_value(float, t, "keyframes"), _value(float, v, "keyframes")) for t, v in values["keyframes"])
    return Curve(points, values["interpolation"])


def _prediction(values: Mapping[str, Any]) -> Prediction:
    prediction = _build(KINDS[values["kind"]], values)
    numbers = [value for value in asdict(prediction).values() if isinstance(value, float)]
    if isinstance(prediction, Flow):
        known = prediction.output in ("velocity", "data") and prediction.clean_time in (0, 1) and prediction.levels >= 0
    else:
        known = getattr(prediction, "timesteps", 1) in range(1, 1 << 20)
    if not known or min(numbers) <= 0:
        raise FileError(f"its '{KEY}' metadata is damaged: its prediction is of no kind that is known.")
    return prediction


def _steps(value: Any) -> int:
    steps = _value(int, value, "steps")
    if not 1 <= steps <= 10_000:
        raise FileError(f"its '{KEY}' metadata is damaged: it recommends {steps} steps.")
    return steps


def _settings(values: Any) -> tuple[Setting, ...]:
    if not isinstance(values, list):
        raise TypeError("settings are a list")
    return tuple(
        Setting(
            _value(str, entry["name"], "a setting's name"),
            schedule_from_dict(entry["schedule"]),
            _steps(entry["steps"]),
        )
        for entry in values
    )


def _labels(values: Any) -> tuple[str, ...]:
    if not isinstance(values, list) or not all(isinstance(label, str) for label in values):
        raise TypeError("labels are a list of text")
    return tuple(values)


def _latent(name: Any) -> str:
    if name not in LATENTS:
        raise FileError(f"its latent '{name}' is unknown here; known: {', '.join(LATENTS)}.")
    return name


def _build(cls: type, values: Mapping[str, Any]) -> Any:
    """A dataclass from JSON: unknown fields are left out, lists are tuples."""
    kinds = {field.name: field.type for field in fields(cls)}
    return cls(**{name: _value(kinds[name], value, name) for name, value in values.items() if name in kinds})


def _value(kind: Any, value: Any, name: str) -> Any:
    """A value of a field; FileError if it is not of the field's type `kind`, or no ordinary number."""
    if typing.get_origin(kind) is tuple:
        if isinstance(value, list):
            return tuple(_value(typing.get_args(kind)[0], entry, name) for entry in value)
    elif kind is float:
        if type(value) in (int, float) and abs(value) < math.inf:
            return float(value)
    elif type(value) is kind:
        return value
    raise FileError(f"its '{KEY}' metadata is damaged: {name} is {str(value)[:40]!r}.")
