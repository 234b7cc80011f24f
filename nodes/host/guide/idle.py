"""Why a run came out as without guidance, in one sentence."""

import logging
from dataclasses import replace
from typing import Any

from ....sparse_model.method.schedule import Schedule
from ....sparse_model.method.tokens import subsets
from ..adapters import adapter_of
from ..own.foreign import maker, title
from .hook import GuidanceHook
from .run import Run


def unheard(guider: Any, hook: Any) -> str:
    """Said of a run in which our hook was never called, where that `hook` was the last one that nodes had set."""
    if hook is None or isinstance(hook, GuidanceHook):
        return (
            f"The plan had no effect: {type(guider).__name__} does not guide through the host's usual function; use "
            "KSampler, CFGGuider or Sparse Guider."
        )
    node = title(maker(hook))
    return (
        f"The plan had no effect: {node} stands behind Sparse Guidance and replaces it; put {node} in front of Sparse "
        "Guidance, or take it out."
    )


def idle(run: Run, model: Any, shape: tuple[int, ...]) -> str | None:
    """Said of a run of a model over a latent [B, C, ...] that the schedule means to guide and does not; None of any
    other."""
    if not run.omegas or not guides(run.schedule):
        return None
    guided = [moment for moment, omega in run.omegas.items() if omega != 1]
    return alike(run, guided, model, shape) if guided else missed(run)


def alike(run: Run, guided: list[float], model: Any, shape: tuple[int, ...]) -> str | None:
    """Said where guidance is the difference between more and fewer tokens, and at none of the guided moments a token is
    left out: their number is rounded."""
    if not run.rule.contrasts_sparsity or run.schedule.selection == "bernoulli":
        return None
    rate = max(run.schedule.at(moment).gamma_weak for moment in guided)
    try:
        adapter = adapter_of(model)
        tokens, plain = adapter.tokens(shape), replace(subsets(), factors=adapter.sparsity.factors(adapter.depth))
        kept = [plain.count(tokens, rate, route) for route in range(max(len(plain.factors), 1))]
    except Exception as unknown:  # of other nodes' networks; a text must not cost a picture
        logging.debug("Sparse Guidance: the tokens of this run are not known (%s).", unknown)
        return None
    if min(kept) < tokens:
        return None
    return (
        f"Nothing was guided: a gamma_weak of {rate:g} leaves out none of the {tokens} tokens of this latent, so that "
        "both predictions are the same. Raise gamma_weak."
    )


def missed(run: Run) -> str:
    """Said where no step of a run is guided."""
    schedule, at = run.schedule, sorted(run.omegas)
    when = f"from {schedule.start:g} to {schedule.end:g} of the way"
    if any(schedule.start <= moment <= schedule.end for moment in at):
        return (
            f"Nothing was guided: {when} the plan's omega is 1, which is no guidance, at every step of this run. Raise "
            "its curve there, or take more steps."
        )
    if at[0] > schedule.end:
        return (
            f"Nothing was guided: the plan guides {when}, and this run begins behind that, at {at[0]:.3g}. The last "
            "part of a split run may; otherwise raise denoise, or take a plan that guides there."
        )
    near = [*(m for m in at if m < schedule.start)][-1:] + [*(m for m in at if m > schedule.end)][:1]
    nearest = f"the nearest are at {near[0]:.3g} and {near[1]:.3g}" if near[1:] else f"the nearest is at {near[0]:.3g}"
    return (
        f"Nothing was guided: the plan guides {when}, and no step of this run falls there ({nearest}). Take more "
        "steps, or a plan whose start_percent and end_percent include one."
    )


def guides(schedule: Schedule) -> bool:
    """Whether a schedule means to guide at any moment: an omega of 1 from noise to end is how to say no."""
    return (schedule.omega.low, schedule.omega.high) != (1, 1)
