"""Sampling progress of a noise level, as the host's start_percent and end_percent widgets count it."""

from typing import Any


def progress(model_sampling: Any, sigma: float) -> float:
    """The percent in [0, 1] at which the host's `percent_to_sigma` is `sigma`: 0 at noise, 1 at the end.

    It depends on the noise level alone, so img2img, split sigmas and samplers that step off the schedule (heun,
    dpmpp_sde) all see the same curve. Bisection, because every model sampling has its own formula.
    """
    low, high = 0.0, 1.0
    for _ in range(26):
        middle = (low + high) / 2
        if float(model_sampling.percent_to_sigma(middle)) > sigma:
            low = middle
        else:
            high = middle
    # Rounding undoes float32 noise in sigmas, so that a step on the edge of an interval is inside it.
    return round((low + high) / 2, 6)
