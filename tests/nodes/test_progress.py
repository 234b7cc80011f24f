"""Progress of a noise level, against formulas of percent_to_sigma that can be inverted by hand."""

import math

import pytest
from hostless import hostless

progress = hostless("nodes.host.guide.progress").progress


class Straight:
    """Flow matching: sigma is 1 at noise and falls evenly; a shift lifts the middle (arXiv 2403.03206)."""

    def __init__(self, shift=1.0):
        self.shift = shift

    def percent_to_sigma(self, percent):
        t = 1 - percent
        return self.shift * t / (1 + (self.shift - 1) * t)


class Logarithmic:
    """Noise levels from 80 to 0.002, evenly on a logarithmic scale."""

    def percent_to_sigma(self, percent):
        if percent <= 0:
            return 1e9
        if percent >= 1:
            return 0.0
        return math.exp(math.log(80) + percent * (math.log(0.002) - math.log(80)))


@pytest.mark.parametrize(("sampling", "sigma", "expected"), [
    (Straight(), 1.0, 0.0), (Straight(), 0.75, 0.25), (Straight(), 0.0, 1.0),
    (Straight(3.0), 0.75, 0.5), (Straight(3.0), 0.9, 0.25),
    (Logarithmic(), 0.4, 0.5), (Logarithmic(), 1e12, 0.0), (Logarithmic(), 0.0, 1.0),
])  # fmt: skip
def test_progress_is_the_percent_of_a_noise_level(sampling, sigma, expected):
    assert progress(sampling, sigma) == pytest.approx(expected, abs=1e-6)


def test_float32_noise_does_not_move_a_step_off_the_edge_of_an_interval():
    assert progress(Straight(), 0.2 + 1e-8) == progress(Straight(), 0.2 - 1e-8) == 0.8
