"""Which branch decides for ComfyUI's EasyCache when a step may be left out."""

from typing import Any

HOLDER = "easycache"
"""That node's entry in transformer_options."""


def strong_leads(model_options: dict[str, Any], conditions: list[dict[str, Any]]) -> None:
    """EasyCache goes by one condition, the first of the first batch that it looks at. The host batches conditions from
    the last to the first, so that would be the weak branch, whose predictions change with its tokens and which is not
    evaluated any more once guidance has ended. The strong one, whose `conditions` these are, is evaluated in every step.
    """
    holder = model_options.get("transformer_options", {}).get(HOLDER)
    if conditions and holder is not None and getattr(holder, "first_cond_uuid", holder) is None:
        holder.first_cond_uuid, holder.initial_step = conditions[0]["uuid"], False
