"""How often a sampler evaluates its model: some do it twice or more a step."""

import logging
from typing import Any

import comfy.samplers
import torch
from torch import Tensor


class Counter(comfy.samplers.CFGGuider):
    """Stands for a model in front of a sampler, finds every picture empty, and counts how often it was asked."""

    def __init__(self, model: Any):
        super().__init__(model)
        self.inner_model, self.count = model.model, 0

    def __call__(self, x: Tensor, timestep: Tensor, model_options: dict, seed: int | None = None) -> Tensor:
        self.count += 1
        denoised = torch.zeros_like(x)
        answer = {"denoised": denoised, "cond_denoised": denoised, "uncond_denoised": denoised, "input": x}
        for patch in model_options.get("sampler_post_cfg_function", []):  # how samplers of CFG++ learn of it
            denoised = patch({**answer, "sigma": timestep, "model": self.inner_model, "model_options": model_options})
        return denoised


def evaluations_of(plan: comfy.samplers.KSampler) -> int:
    """How many evaluations the steps of a plan take, by taking them with a picture of one value and no network; as many
    as there are steps where another pack's sampler wants more than that. One that decides by what it finds takes about
    so many."""
    sigmas = plan.sigmas.cpu()
    if len(sigmas) < 2:
        return 0
    counter, empty = Counter(plan.model), torch.zeros(1, 1, 1, 1)
    try:
        with torch.random.fork_rng(devices=[]):
            sampler = comfy.samplers.sampler_object(plan.sampler)
            extra = {"model_options": {"transformer_options": {}}, "seed": 0}
            sampler.sample(counter, sigmas, extra, None, torch.ones_like(empty), empty, None, True)
    except Exception as unknown:
        logging.debug("Sparse Guidance: the evaluations of %s are not known (%s).", plan.sampler, unknown)
        return len(sigmas) - 1
    return counter.count
