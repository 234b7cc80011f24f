"""A guider that follows a schedule's own omega and may take its weak branch from a second model."""

from collections import Counter
from contextlib import nullcontext
from typing import Any

import comfy.samplers
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ....sparse_model.method.branches import Branch
from ....sparse_model.method.guidance import NULL, RULES
from ....sparse_model.method.schedule import Schedule
from ..notices import begin
from ..own.model import spec_of
from ..wire import KEY, picture_shape, with_entry
from .auxiliary import Auxiliary
from .checks import check_plan, check_route, check_weak_model, mask_over
from .hook import GuidanceHook
from .idle import idle
from .patch import earlier_hook, install, is_guided, unguided
from .run import Run, first_evaluation
from .telling import tell_cost


class SparseGuider(comfy.samplers.CFGGuider):
    """The host's CFG guider with omega, sparsity and the weak branch decided by a schedule. `cfg` is the scale of the
    rule SG beside CFG; others do not use it. Tokens under a MASK [B, H, W] are never left out."""

    def __init__(
        self,
        model: ModelPatcher,
        schedule: Schedule,
        positive: list,
        negative: list | None = None,
        weak_model: ModelPatcher | None = None,
        cfg: float = 1.0,
        mask: Tensor | None = None,
    ):
        check_weak_model(model, weak_model, schedule.rule)
        check_plan(model, schedule)
        self.replaces = is_guided(model)
        if weak_model is not None and schedule.gamma_weak.high > 0:
            check_route(weak_model, "The weak model", schedule)
        super().__init__(unguided(model))
        self.schedule, self.auxiliary, self.mask = schedule, None, mask
        self.ran: Counter[tuple[Branch, ...]] = Counter()  # how often the latest run evaluated which branches
        self.set_cfg(cfg)
        rule, conditions = RULES[schedule.rule], {"positive": positive}
        if NULL in rule.conditions and not (rule.beside_cfg and cfg == 1):
            conditions["negative"] = negative if negative is not None else self._null()
        self.inner_set_conds(conditions)
        if weak_model is not None:
            # The host loads additional models together with the model, in one reckoning of memory.
            self.auxiliary = Auxiliary(weak_model)
            self.model_patcher.set_additional_models(KEY, [weak_model])

    def predict_noise(self, x: Tensor, timestep: Tensor, model_options: dict = {}, seed: int | None = None) -> Tensor:  # noqa: B006
        run = model_options["transformer_options"][KEY]
        now = run.settings(self.inner_model.model_sampling, timestep)
        positive = self.conds["positive"]
        return comfy.samplers.sampling_function(
            self.inner_model,
            x,
            timestep,
            self.conds.get("negative", positive),
            positive,
            self.cfg if run.rule.beside_cfg else now.omega,
            model_options=model_options,
            seed=seed,
        )

    def inner_sample(
        self,
        noise: Tensor,
        latent_image: Tensor,
        device: torch.device,
        sampler: Any,
        sigmas: Tensor,
        denoise_mask: Tensor | None,
        callback: Any,
        disable_pbar: bool,
        seed: int | None,
        **kwargs: Any,
    ) -> Tensor:
        """Here the models are loaded, and self.model_options belong to this run alone."""
        notices = begin(self.model_options)
        if self.replaces:
            notices.say(
                "Sparse Guidance on this model has no effect: what samples here has a plan of its own (preset or "
                "sparsity). Take it out, or sample with a stock sampler."
            )
        first = first_evaluation(self.inner_model.model_sampling, float(sigmas[0]))
        shape = picture_shape(noise, kwargs.get("latent_shapes"))
        mask = mask_over(self.model_patcher, self.schedule, self.mask, shape)
        run = Run(self.schedule, seed or 0, first, steps=max(len(sigmas) - 1, 1), mask=mask)
        self.model_options, self.ran = with_entry(self.model_options, run), run.ran
        rest = (device, sampler, sigmas, denoise_mask, callback, disable_pbar, seed)
        with self._weak(noise, latent_image, device, sigmas, denoise_mask, seed, kwargs) as weak:
            install(self.model_options, self.schedule, GuidanceHook(earlier_hook(self.model_options), weak))
            output = super().inner_sample(noise, latent_image, *rest, **kwargs)
        tell_cost(self, run, shape)
        if words := idle(run, self.model_patcher, shape):
            notices.say(words)
        return output

    def _weak(self, *sampling: Any) -> Any:
        """The weak model in the middle of sampling, or nothing."""
        if self.auxiliary is None:
            return nullcontext()
        return self.auxiliary.sampling([condition.copy() for condition in self.conds["positive"]], *sampling)

    def _null(self) -> list:
        spec = spec_of(self.model_patcher)
        if spec is None:
            raise ValueError(f"The rule {self.schedule.rule} needs a negative conditioning; connect one as negative.")
        if spec.text is not None:
            if spec.text.null == "zeros":
                return [[spec.text.zeros().embeddings, {}]]
            raise ValueError(
                f"The rule {self.schedule.rule} guides away from the empty prompt: connect a CLIP Text Encode without "
                "text as negative."
            )
        return [[torch.zeros(1, 1, spec.config.num_classes), {}]]
