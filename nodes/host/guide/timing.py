"""How long one step of a model takes without guidance, under CFG and under a plan."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import comfy.model_management
import comfy.patcher_extension
import comfy.samplers
import comfy.utils
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ....sparse_model.method.guidance import RULES
from ....sparse_model.method.schedule import Curve, Schedule
from ..notices import begin
from .guider import SparseGuider
from .patch import guided, unguided
from .sampling import fitting
from .telling import untold

SCALE = 2.0
"""Any scale but 1 runs two branches."""


def unguided_seconds(model: ModelPatcher, positive: list, shape: tuple[int, ...]) -> float:
    """Seconds of one step without guidance, after one to warm up."""
    return min(_step(_stock(unguided(model), positive, 1.0), shape) for _ in range(2))


def step_seconds(
    model: ModelPatcher,
    schedule: Schedule,
    positive: list,
    shape: tuple[int, ...],
    cfg: float = 1.0,
    weak_model: ModelPatcher | None = None,
) -> dict[str, float]:
    """Seconds of one step over a latent [B, C, ...] with the rates of the middle of guidance, after one to warm up: of
    no guidance, CFG and the schedule's rule, left out where it runs a second model and there is no `weak_model`.

    The weak branch of every rule is timed with the same condition: a null condition costs as much. `cfg` is the scale
    of a rule that has CFG besides.
    """
    plain = unguided(model)
    begin(plain.model_options)  # of all of them together, so that nothing is said twice
    rule, halfway = RULES[schedule.rule], schedule.at((schedule.start + schedule.end) / 2)
    moment = replace(
        schedule,
        gamma_strong=Curve.constant(halfway.gamma_strong),
        gamma_weak=Curve.constant(halfway.gamma_weak),
        omega=Curve.constant(SCALE),
        start=0.0,
        end=1.0,
    )
    scale = cfg if rule.beside_cfg else SCALE

    ways: dict[str, Callable[[], comfy.samplers.CFGGuider]] = {
        "no guidance": lambda: _stock(plain, positive, 1.0),
        "CFG": lambda: _stock(plain, positive, SCALE),
    }
    if not rule.auxiliary:
        ways[schedule.rule] = lambda: _stock(guided(plain, moment), positive, scale)
    elif weak_model is not None:
        ways[schedule.rule] = lambda: SparseGuider(plain, moment, positive, weak_model=weak_model)
    return {name: min(_step(way(), shape) for _ in range(2)) for name, way in ways.items()}


def _stock(model: ModelPatcher, positive: list, scale: float) -> comfy.samplers.CFGGuider:
    """The host's guider over a clone of the model, with one condition on both sides."""
    guider = comfy.samplers.CFGGuider(model.clone())
    guider.set_conds(positive, [[value.clone(), dict(more)] for value, more in positive])
    guider.set_cfg(scale)
    return guider


def _step(guider: comfy.samplers.CFGGuider, shape: tuple[int, ...]) -> float:
    """Seconds of the one step that a guider of one's own takes; it is not for a second one."""
    untold(guider)
    model = guider.model_patcher
    seconds: list[float] = []

    def timed(executor: Any, *args: Any) -> Tensor:
        started = now(model.load_device)
        output = executor(*args)
        seconds.append(now(model.load_device) - started)
        return output

    model.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.PREDICT_NOISE, "sparse_guidance_time", timed)
    sampling = model.get_model_object("model_sampling")
    sigmas = torch.tensor([float(sampling.percent_to_sigma(0.5)), float(sampling.percent_to_sigma(0.6))])
    noise = fitting(model, {"samples": torch.zeros(shape)})  # with a sound, where the model has one
    guider.sample(noise, noise, comfy.samplers.sampler_object("euler"), sigmas, disable_pbar=True, seed=0)
    return seconds[0]


def now(device: torch.device) -> float:
    """Seconds, once the device has done everything it was asked to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type in ("mps", "xpu"):
        getattr(torch, device.type).synchronize()
    return time.perf_counter()
