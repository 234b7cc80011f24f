"""What the editor's scripts (web/) ask while a graph is being made: a plan before it is run, a model's labels.

Everything is answered by the code that runs later, so that what is shown is what happens.
"""

import asyncio
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from aiohttp import web
from server import PromptServer

from ..sparse_model.checkpoints.checkpoint import open_checkpoint
from ..sparse_model.checkpoints.spec import ModelSpec
from ..sparse_model.conditions.labels import class_names
from ..sparse_model.files import printable
from ..sparse_model.method.guidance import RULES
from .host.own.folders import model_path
from .route import foreseen
from .route import used_widgets as used_route_widgets
from .scheduler import CUSTOM, custom_schedule, shown, used_widgets
from .sockets import FROM_MODEL, preset_schedule, recommended

PLAN, LABELS, ROUTE = "/sparse_guidance/plan", "/sparse_guidance/labels", "/sparse_guidance/route"


def add_routes() -> None:
    """Registers all addresses with the running server."""
    PromptServer.instance.routes.post(PLAN)(_plan)
    PromptServer.instance.routes.get(LABELS)(_labels)
    PromptServer.instance.routes.post(ROUTE)(_route)


def plan(asked: dict[str, Any]) -> dict[str, Any]:
    """{"preset", "values", "model_name", "connected", "scale"} of a Sparsity Scheduler -> what it does (`shown`), which
    inputs count (`used`), the names of the `settings` that the model's file offers, or an `error` in one sentence.
    `connected` says whether there is a model, if it is not known which. What is linked and known only in a run is True.
    A `scale` above 0 is the cfg of a stock sampler behind it, which takes omega's place (`scaled`) unless the rule
    leaves cfg its own meaning."""
    preset, values = asked.get("preset"), asked.get("values") or {}
    answer: dict[str, Any] = {}
    try:
        answer["used"] = used_widgets(preset, values)
        unknown = [name for name in answer["used"] if values.get(name) is True]
        if unknown:
            raise ValueError(f"What comes to {unknown[0]} is known in a run; the plan is shown here after it.")
        values = {each: 0 if value is True else value for each, value in values.items()}  # which decide nothing
        name = asked.get("model_name")
        spec = spec_of_file(name) if name and preset == FROM_MODEL else None
        answer["settings"] = [offered.name for offered in spec.settings] if spec else []
        answer["used"] = used_widgets(preset, values, bool(spec.settings if spec else asked.get("connected")))
        setting = (values.get("setting") or "").strip()
        if preset == CUSTOM:
            schedule = custom_schedule(values)
        else:
            schedule = recommended(preset, spec, setting) if name else preset_schedule(preset, None)
        scaled = bool(asked.get("scale")) and not RULES[schedule.rule].beside_cfg
        if scaled and asked["scale"] is not True:
            schedule = schedule.with_scale(float(asked["scale"]))
        steps = (spec.setting(setting) if setting else spec).steps if spec else None
        return {**answer, **shown(schedule), "scaled": scaled, "steps": steps}
    except ValueError as error:
        return {**answer, "error": printable(str(error))}
    except Exception:  # whatever else comes of values that no widget has
        return {**answer, "error": "These values are incomplete."}


def route(values: dict[str, Any]) -> dict[str, Any]:
    """The widgets of a Token Route -> which of them count (`used`), and what they say in words (`text`). What is linked
    and known only in a run is True."""
    unknown = [name for name, value in values.items() if value is True]
    if unknown:
        return {"text": f"What comes to {unknown[0]} is known in a run; the route is told here after it."}
    try:
        said = str(values["route"]), int(values["start_layer"]), int(values["end_layer"]), float(values["ratio"])
        json = str(values.get("json") or "")
        used = used_route_widgets(said[0], json)
    except Exception:  # of values that no widget has
        return {"text": "These values are incomplete."}
    try:
        return {"used": used, "text": foreseen(*said, json)}
    except (ValueError, LookupError, RecursionError) as error:
        return {"used": used, "text": printable(str(error))}


def labels(name: str) -> list[str]:
    """The labels of a checkpoint's name; none for a model that reads text, or a file that cannot be read."""
    try:
        spec = spec_of_file(name)
    except (ValueError, OSError):
        return []
    return [] if spec.text else list(spec.labels or class_names(spec.config.num_classes))


def spec_of_file(name: str) -> ModelSpec:
    """What a checkpoint of the loaders' lists is; ValueError if it is none or cannot be read."""
    path = model_path(name, "checkpoints") if isinstance(name, str) and "\0" not in name else None
    if path is None:
        raise ValueError(f"There is no checkpoint '{name}' in models/diffusion_models or models/checkpoints.")
    return _read(path, Path(path).stat().st_mtime_ns)


@lru_cache(maxsize=32)
def _read(path: str, changed: int) -> ModelSpec:
    with open_checkpoint(path, values=False) as checkpoint:
        return checkpoint.spec


async def _plan(request: web.Request) -> web.Response:
    return await _answered(plan, request)


async def _route(request: web.Request) -> web.Response:
    return await _answered(route, request)


async def _answered(answer: Callable[[dict[str, Any]], dict[str, Any]], request: web.Request) -> web.Response:
    try:
        asked = await request.json()
    except (ValueError, RecursionError):
        asked = None
    if not isinstance(asked, dict):
        return web.json_response({"error": "this is asked for by an object."}, status=400)
    return web.json_response(await asyncio.to_thread(answer, asked))


async def _labels(request: web.Request) -> web.Response:
    return web.json_response(await asyncio.to_thread(labels, request.query.get("model_name", "")))
