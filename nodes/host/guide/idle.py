"""Why a run came out as without guidance, in one sentence."""

from typing import Any

from ....sparse_model.method.schedule import Schedule
from ..own.foreign import maker, title
from .hook import GuidanceHook
from .run import Run


def unheard(guider: Any, hook: Any) -> str:
    """Said of a run in which our hook was never called, where that `hook` was the last one that nodes had set."""
    if hook is None or isinstance(hook, GuidanceHook):
        return (
            f"It had no effect: {type(guider).__name__} does not guide through the host's usual function; use "
            "KSampler, CFGGuider or Sparse Guider."
        )
    node = title(maker(hook))
    return f"It had no effect: {node} stands behind Sparse Guidance and replaces it; put {node} in front of it."


def missed(run: Run) -> str | None:
    """Said of a run none of whose steps the schedule guides, although it means to; None of any other."""
    schedule, at = run.schedule, sorted(run.omegas)
    if not at or not guides(schedule) or any(omega != 1 for omega in run.omegas.values()):
        return None
    when = f"from {schedule.start:g} to {schedule.end:g} of the way"
    if any(schedule.start <= moment <= schedule.end for moment in at):
        return (
            f"It did not guide: {when} the plan's omega is 1, which is no guidance, at every step of this run. Raise "
            "its curve there, or take more steps."
        )
    near = [*(m for m in at if m < schedule.start)][-1:] + [*(m for m in at if m > schedule.end)][:1]
    nearest = f"the nearest are at {near[0]:.3g} and {near[1]:.3g}" if near[1:] else f"the nearest is at {near[0]:.3g}"
    return (
        f"It did not guide: the plan guides {when}, and no step of this run falls there ({nearest}). Take more steps, "
        "or a plan whose start_percent and end_percent include one."
    )


def guides(schedule: Schedule) -> bool:
    """Whether a schedule means to guide at any moment: an omega of 1 from noise to end is how to say no."""
    return (schedule.omega.low, schedule.omega.high) != (1, 1)
