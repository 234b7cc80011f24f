"""Progress of a noise level, against formulas of percent_to_sigma that can be inverted by hand."""

import math

import pytest
import torch
from hostless import hostless
from torch import Tensor, nn

from sparse_model.method.schedule import Curve, Schedule

Progress, run = hostless("nodes.host.guide.progress").Progress, hostless("nodes.host.guide.run")


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
    assert Progress(sampling)(sigma) == pytest.approx(expected, abs=1e-6)


def test_float32_noise_does_not_move_a_step_off_the_edge_of_an_interval():
    assert Progress(Straight())(0.2 + 1e-8) == Progress(Straight())(0.2 - 1e-8) == 0.8


class OnDevice(Tensor):
    """Stands in for a tensor on a GPU: counts what is read back from it, which waits for the device."""

    READS = (Tensor.item, Tensor.tolist, Tensor.__float__, Tensor.cpu)
    reads = 0

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        if function not in cls.READS:
            return super().__torch_function__(function, types, args, kwargs)
        cls.reads += 1
        return function(args[0].as_subclass(Tensor), *args[1:], **(kwargs or {}))


class Discrete(nn.Module):
    """Looks noise levels up in a table, as the host's sampling of noise prediction does."""

    def __init__(self, levels: Tensor):
        super().__init__()
        self.register_buffer("levels", levels)
        self.register_buffer("absent", None)
        self.model = OnDevice  # whatever it refers to is not copied

    def percent_to_sigma(self, percent):
        return self.levels[round((1 - percent) * (len(self.levels) - 1))].item()


def test_tables_on_a_device_are_read_back_once_a_run():
    levels = torch.linspace(0, 80, 1001)
    sampling, known = Discrete(levels.as_subclass(OnDevice)), Progress(Discrete(levels))
    ramp = Schedule(Curve.constant(0.0), Curve.constant(0.5), Curve.linear(1.5, 3.0))
    OnDevice.reads = 0
    guided = run.Run(ramp)
    for sigma in (80.0, 41.5, 30.0, 0.1):
        assert guided.settings(sampling, torch.tensor([sigma])) == ramp.at(known(sigma))
    assert OnDevice.reads == 1
    assert isinstance(sampling.levels, OnDevice), "the model keeps its own"
