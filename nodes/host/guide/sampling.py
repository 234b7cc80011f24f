"""Sampling a latent with a guider, as the stock KSampler does it with two conditions."""

import inspect
from collections.abc import Callable
from typing import Any

import comfy.model_management
import comfy.sample
import comfy.samplers
import comfy.utils
import latent_preview

from .guider import SparseGuider


def sample_latent(
    guider: SparseGuider,
    latent: dict[str, Any],
    *,
    seed: int,
    steps: int,
    sampler_name: str,
    scheduler: str,
    denoise: float,
    callback: Callable[..., None] | None = None,
) -> dict[str, Any]:
    """LATENT -> LATENT: noise by seed and batch index, the host's sigmas and sampler, its progress bar and previews, if
    there is no `callback` for them."""
    model = guider.model_patcher
    start, plan = fitting(model, latent), steps_of(model, steps, sampler_name, scheduler, denoise)
    samples = guider.sample(
        comfy.sample.prepare_noise(start, seed, latent.get("batch_index")),
        start,
        comfy.samplers.sampler_object(plan.sampler),
        plan.sigmas,
        denoise_mask=latent.get("noise_mask"),
        callback=callback or latent_preview.prepare_callback(model, steps),
        disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
        seed=seed,
    )
    rest = {key: value for key, value in latent.items() if not key.startswith("downscale_ratio")}
    return {**rest, "samples": samples.to(comfy.model_management.intermediate_device(), _intermediate_dtype(samples))}


def steps_of(model: Any, steps: int, sampler_name: str, scheduler: str, denoise: float) -> comfy.samplers.KSampler:
    """The host's sampler of these settings, and its sigmas: some schedulers make more or fewer than `steps`."""
    return comfy.samplers.KSampler(
        model, steps, model.load_device, sampler_name, scheduler, denoise, model_options=model.model_options
    )


def fitting(model: Any, latent: dict[str, Any]) -> Any:
    """The latent's samples, an empty one in the model's channels (and size, where the host knows how)."""
    fit = comfy.sample.fix_empty_latent_channels
    known = inspect.signature(fit).parameters
    names = [name for name in ("downscale_ratio_spacial", "downscale_ratio_temporal") if name in known]
    return fit(model, latent["samples"], *(latent.get(name) for name in names))


def _intermediate_dtype(samples: Any) -> Any:
    """New hosts can keep what flows between nodes in half precision."""
    return getattr(comfy.model_management, "intermediate_dtype", lambda: samples.dtype)()
