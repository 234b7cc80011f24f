"""Sampling progress of a noise level, as the host's start_percent and end_percent widgets count it."""

import copy
from typing import Any

from torch import nn


class Progress:
    """sigma -> the percent in [0, 1] at which a model sampling's `percent_to_sigma` is sigma: 0 at noise, 1 at the end.

    It depends on the noise level alone, so img2img, split sigmas and samplers that step off the schedule (heun,
    dpmpp_sde) all see the same curve. Bisection, because every model sampling has its own formula. Some look it up in
    tables that lie on the device: they are read back once, not at every question.
    """

    def __init__(self, model_sampling: Any):
        self._percent_to_sigma = _on_cpu(model_sampling).percent_to_sigma

    def __call__(self, sigma: float) -> float:
        low, high = 0.0, 1.0
        for _ in range(26):
            middle = (low + high) / 2
            if float(self._percent_to_sigma(middle)) > sigma:
                low = middle
            else:
                high = middle
        # Rounding undoes float32 noise in sigmas, so that a step on the edge of an interval is inside it.
        return round((low + high) / 2, 6)


def _on_cpu(model_sampling: Any) -> Any:
    """The same with its tables on the CPU. Not a deep copy: whatever else it refers to may be large."""
    if not isinstance(model_sampling, nn.Module):
        return model_sampling
    twin = copy.copy(model_sampling)
    twin._buffers = {name: table if table is None else table.cpu() for name, table in twin._buffers.items()}
    return twin
