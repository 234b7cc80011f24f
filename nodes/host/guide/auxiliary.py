"""A second, weaker model beside the one that is sampled (AutoGuidance, arXiv 2406.02507)."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import comfy.model_patcher
import comfy.sampler_helpers
import comfy.samplers
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ....sparse_model.method.branches import Evaluation
from ..wire import with_entry


@dataclass(frozen=True)
class Auxiliary:
    """The weak model's patcher. The host has loaded it with the main model when `sampling` is entered."""

    patcher: ModelPatcher

    @contextmanager
    def sampling(
        self,
        conditions: list[dict[str, Any]],
        noise: Tensor,
        latent_image: Tensor,
        device: torch.device,
        sigmas: Tensor,
        denoise_mask: Tensor | None,
        seed: int | None,
        shapes: dict[str, Any],
    ) -> Iterator[Callable[[dict[str, Any], Evaluation], list[Tensor]]]:
        """A function (args of the host's hook, evaluation) -> one prediction per branch, zeros where it is not the weak
        model's; the model is let go however it ends.

        `shapes` is what the running host passes about packed latents, if it does.
        """
        # Weight hooks are registered on the main model's patcher; this one would look for them in vain.
        own = [{key: value for key, value in condition.items() if key != "hooks"} for condition in conditions]
        options = comfy.model_patcher.create_model_options_clone(self.patcher.model_options)
        options.setdefault("transformer_options", {})["sample_sigmas"] = sigmas
        comfy.sampler_helpers.prepare_model_patcher(self.patcher, {"positive": own}, options)
        model = self.patcher.model
        self.patcher.pre_run()
        # what the host tells its own model before it asks it about the conditions
        if "latent_shapes" in shapes:
            model.latent_shapes = shapes["latent_shapes"]
        if latent_image is not None and torch.count_nonzero(latent_image) > 0:
            latent_image = model.process_latent_in(latent_image)
        try:
            own = comfy.samplers.process_conds(
                model, noise, {"positive": own}, device, latent_image, denoise_mask, seed, **shapes
            )["positive"]

            def predict(args: dict[str, Any], evaluation: Evaluation) -> list[Tensor]:
                conds = [own if branch.auxiliary else None for branch in evaluation.branches]
                marked = with_entry(options, evaluation)
                return comfy.samplers.calc_cond_batch(model, conds, args["input"], args["sigma"], marked)

            yield predict
        finally:
            self.patcher.cleanup()
