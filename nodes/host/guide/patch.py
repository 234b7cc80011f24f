"""Sparse Guidance as a patch on a model, for any sampler that combines two predictions at a scale `cfg`."""

from dataclasses import dataclass
from typing import Any

from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ....sparse_model.method.guidance import RULES
from ....sparse_model.method.schedule import Schedule
from ..notices import begin
from ..wire import KEY, picture_shape
from .checks import check_plan, mask_over
from .hook import GuidanceHook, add_pull, evaluate_conditions
from .idle import idle, unheard
from .run import Run, first_evaluation
from .telling import tell_cost

HOOK, AFTER_CFG = "sampler_calc_cond_batch_function", "sampler_post_cfg_function"


def guided(model: ModelPatcher, schedule: Schedule, mask: Tensor | None = None) -> ModelPatcher:
    """A clone of the model that a stock sampler guides sparsely; the sampler's cfg is omega, or stays CFG's own scale
    under a rule that has one. Tokens under a MASK [B, H, W] are never left out."""
    if RULES[schedule.rule].auxiliary:
        raise ValueError(
            f"The rule {schedule.rule} needs a weak model, which a stock sampler cannot take: use Sparse Guider or "
            "Sparse KSampler for it."
        )
    check_plan(model, schedule)
    patched, earlier = unguided(model), is_guided(model)
    install(patched.model_options, schedule, GuidanceHook(earlier_hook(patched.model_options)))
    patched.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, KEY, BeginRun(schedule, mask, earlier))
    return patched


def install(model_options: dict[str, Any], schedule: Schedule, hook: GuidanceHook) -> None:
    """Puts the hooks of a schedule's rule into model options of one's own."""
    model_options[HOOK] = hook
    if RULES[schedule.rule].beside_cfg:
        model_options[AFTER_CFG] = [*model_options.get(AFTER_CFG, []), add_pull]


def is_guided(model: ModelPatcher) -> bool:
    """Whether it has our patch, which a plan that comes later replaces."""
    return bool(model.get_wrappers(WrappersMP.OUTER_SAMPLE, KEY))


def unguided(model: ModelPatcher) -> ModelPatcher:
    """A clone without our patch: of two guidance nodes in a row the last one counts."""
    clone = model.clone()
    hook = clone.model_options.get(HOOK)
    if isinstance(hook, GuidanceHook):
        del clone.model_options[HOOK]
        if hook.evaluate is not evaluate_conditions:
            clone.model_options[HOOK] = hook.evaluate
    if add_pull in clone.model_options.get(AFTER_CFG, []):
        clone.model_options[AFTER_CFG] = [each for each in clone.model_options[AFTER_CFG] if each is not add_pull]
    clone.remove_wrappers_with_key(WrappersMP.OUTER_SAMPLE, KEY)
    return clone


def earlier_hook(model_options: dict[str, Any]) -> Any:
    """How predictions are evaluated so far: another node's hook (skip-layer guidance sets one), or the host's way."""
    return model_options.get(HOOK, evaluate_conditions)


@dataclass(frozen=True, eq=False)
class BeginRun:
    """OUTER_SAMPLE wrapper: the one place where the host knows the seed. It starts the run's own state. `replaces`: it
    has taken the place of an earlier one."""

    schedule: Schedule
    mask: Tensor | None = None
    replaces: bool = False

    def __call__(self, executor: Any, *args: Any, **kwargs: Any) -> Any:
        guider, sigmas, seed = executor.class_obj, args[3], args[7]
        relative = not RULES[self.schedule.rule].beside_cfg and hasattr(guider, "cfg")
        schedule = self.schedule.with_scale(2.0) if relative else self.schedule  # omega - 1 is the share of each step
        first = first_evaluation(guider.model_patcher.get_model_object("model_sampling"), float(sigmas[0]))
        shape = picture_shape(args[0], kwargs.get("latent_shapes"))
        mask = mask_over(guider.model_patcher, self.schedule, self.mask, shape)
        steps = max(len(sigmas) - 1, 1)
        run = Run(schedule, seed or 0, first, steps, relative, cfg=lambda: guider.cfg, mask=mask)
        guider.model_options.setdefault("transformer_options", {})[KEY] = run
        notices = begin(guider.model_options)
        if self.replaces:
            notices.say("Of the Sparse Guidance nodes on this model only the last one counts; take the others out.")
        output = executor(*args, **kwargs)
        if words := idle(run, guider.model_patcher, shape):
            notices.say(words)
        if not run.evaluations and len(sigmas) > 1:
            notices.say(unheard(guider, guider.model_options.get(HOOK)))
        elif relative and run.evaluations and run.unscaled == run.evaluations:
            notices.say(
                "Nothing was guided: the sampler's cfg is 1, which is no guidance. Raise it (BasicGuider has none: use "
                "CFGGuider), or choose the rule SG beside CFG, which guides by the schedule's own omega."
            )
        else:
            tell_cost(guider, run, shape)
        return output
