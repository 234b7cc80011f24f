"""What the host's guider gets from a model at one noise level. Runs inside a host's Python."""

from collections.abc import Callable
from typing import Any

import comfy.samplers
import torch
from torch import Tensor

SEED, SIGMA = 9, 0.7


class Probe(comfy.samplers.Sampler):
    """A sampler that evaluates the model once and returns nothing of it."""

    def sample(self, model: Any, sigmas: Tensor, extra_args: dict, callback: Any, noise: Tensor, *_: Any) -> Tensor:
        model(noise, sigmas[:1].expand(len(noise)), **extra_args)
        return noise


def predictions(patcher: Any, positive: list, negative: list | None, x: Tensor, cfg: float) -> list[Tensor]:
    """The host's predictions of the first and the second branch, through its own guider."""
    found = []

    def capture(args: dict) -> Tensor:
        found.extend(args[name] for name in ("cond_denoised", "uncond_denoised") if args[name] is not None)
        return args["denoised"]

    watched = patcher.clone()
    watched.set_model_sampler_post_cfg_function(capture, disable_cfg1_optimization=False)
    guider = comfy.samplers.CFGGuider(watched)
    guider.set_conds(positive, negative or positive)
    guider.set_cfg(cfg)
    nothing = x * 0 if x.is_nested else torch.zeros_like(x)
    guider.sample(x, nothing, Probe(), torch.tensor([SIGMA, 0.0]), disable_pbar=True, seed=SEED)
    return [value.clone() for value in found]


def error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def message(act: Callable[[], Any]) -> str:
    try:
        act()
    except ValueError as problem:
        return str(problem)
    return "no error"
