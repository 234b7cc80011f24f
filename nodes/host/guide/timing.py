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
from .patch import guided, unguided
from .sampling import fitting

SCALE = 2.0
"""Any scale but 1 runs two branches."""


def unguided_seconds(model: ModelPatcher, positive: list, shape: tuple[int, ...]) -> float:
    """Seconds of one step without guidance, after one to warm up."""
    plain = unguided(model)
    return min(_step(plain, positive, 1.0, shape) for _ in range(2))


def step_seconds(
    model: ModelPatcher, schedule: Schedule, positive: list, shape: tuple[int, ...], cfg: float = 1.0
) -> dict[str, float]:
    """Seconds of one step in the middle of sampling a latent [B, C, ...], after one to warm up.

    The weak branch of every rule is timed with the same condition: a null condition costs as much. `cfg` is the scale
    of a rule that has CFG besides.
    """
    if RULES[schedule.rule].auxiliary:
        raise ValueError(
            f"The rule {schedule.rule} runs a second model and is not timed here; the sampler says after a run what "
            "a step took."
        )
    halfway = schedule.at(0.5)
    moment = replace(
        schedule,
        gamma_strong=Curve.constant(halfway.gamma_strong),
        gamma_weak=Curve.constant(halfway.gamma_weak),
        omega=Curve.constant(SCALE),
        start=0.0,
        end=1.0,
    )
    plain, scale = unguided(model), cfg if RULES[schedule.rule].beside_cfg else SCALE
    ways: dict[str, Callable[[], float]] = {
        "no guidance": lambda: _step(plain, positive, 1.0, shape),
        "CFG": lambda: _step(plain, positive, SCALE, shape),
        schedule.rule: lambda: _step(guided(model, moment), positive, scale, shape),
    }
    return {name: min(way(), way()) for name, way in ways.items()}


def _step(model: ModelPatcher, positive: list, scale: float, shape: tuple[int, ...]) -> float:
    seconds: list[float] = []

    def timed(executor: Any, *args: Any) -> Tensor:
        started = now(model.load_device)
        output = executor(*args)
        seconds.append(now(model.load_device) - started)
        return output

    watched = model.clone()
    watched.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.PREDICT_NOISE, "sparse_guidance_time", timed)
    guider = comfy.samplers.CFGGuider(watched)
    guider.set_conds(positive, [[value.clone(), dict(more)] for value, more in positive])
    guider.set_cfg(scale)
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
