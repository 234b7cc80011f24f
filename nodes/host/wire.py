"""What the host's transformer_options carry during a guided run, and how networks read it.

Between the calls of a run our entry is the Run; during a call it is the Evaluation of that step's branches. The host
labels the chunks of its batch by their place in its list of conditions, which is the place of a branch in ours.
"""

from typing import Any, Protocol

from ...sparse_model.method.branches import DENSE, Evaluation

KEY = "sparse_guidance"
"""Our entry in transformer_options, and the name of our wrappers and additional models."""


class Strong(Protocol):
    """A run, as networks see it."""

    strong: Evaluation | None


def with_entry(model_options: dict[str, Any], entry: Strong | Evaluation) -> dict[str, Any]:
    """A copy of model options in which transformer_options carry our entry."""
    return {**model_options, "transformer_options": {**model_options.get("transformer_options", {}), KEY: entry}}


def evaluation_of(transformer_options: dict[str, Any]) -> Evaluation:
    """Which branch each chunk of the host's batch answers. Calls that other nodes make between ours (SLG, PAG) see the
    strong branch: they compare their own prediction with it."""
    entry = transformer_options.get(KEY)
    asked = entry if isinstance(entry, Evaluation) else getattr(entry, "strong", None)
    if asked is None:
        return DENSE
    return asked.labelled(transformer_options["cond_or_uncond"], transformer_options["uuids"])
