"""ComfyUI's EasyCache beside Sparse Guidance: which branch decides whether a step is left out, and how many were."""

from typing import Any

HOLDER = "easycache"
"""That node's entry in transformer_options, LazyCache's, too."""


def strong_leads(model_options: dict[str, Any], conditions: list[dict[str, Any]]) -> None:
    """EasyCache goes by one condition, the first of the first batch that it looks at. The host batches conditions from
    the last to the first, so that would be the weak branch, whose predictions change with its tokens and which is not
    evaluated any more once guidance has ended. The strong one, whose `conditions` these are, always is."""
    holder = _holder(model_options)
    if conditions and holder is not None and getattr(holder, "first_cond_uuid", holder) is None:
        holder.first_cond_uuid, holder.initial_step = conditions[0]["uuid"], False


def left_out(model_options: dict[str, Any]) -> int:
    """How many evaluations of this run it has left out so far."""
    return getattr(_holder(model_options), "total_steps_skipped", 0)


def _holder(model_options: dict[str, Any]) -> Any | None:
    return model_options.get("transformer_options", {}).get(HOLDER)
