"""Every prediction kind turns a network's output into the same clean picture."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparse_model.method.prediction import EDM, KINDS, Epsilon, Flow, column

DATA, NOISE = torch.randn(2, 3, 2, 4, 4, generator=torch.Generator().manual_seed(0))
SIGMA = torch.tensor([0.2, 0.55, 0.9])


class Oracle:
    """A network that is always right; remembers what it was asked."""

    def __init__(self, answer):
        self.answer = answer

    def __call__(self, x, t, *inputs):
        self.x, self.t, self.inputs = x, t, inputs
        return self.answer


def by_sample(function):
    """[function(data, noise, sigma) of every sample], stacked."""
    return torch.stack([function(d, n, s) for d, n, s in zip(DATA, NOISE, SIGMA, strict=True)])


FLOW_X = by_sample(lambda d, n, s: (1 - s) * d + s * n)
FLOWS = {  # what networks of the paper's conventions answer: velocity points along growing time
    "noise at time 1": (Flow(), NOISE - DATA, SIGMA),
    "data at time 1": (Flow(clean_time=1), DATA - NOISE, 1 - SIGMA),
    "data, noise at time 1": (Flow("data"), DATA, SIGMA),
    "data, data at time 1": (Flow("data", 1), DATA, 1 - SIGMA),
    "scaled time": (Flow(time_scale=1000.0), NOISE - DATA, 1000 * SIGMA),
    "scaled backward time": (Flow(clean_time=1, time_scale=1000.0), DATA - NOISE, 1000 * (1 - SIGMA)),
}


@pytest.mark.parametrize(("flow", "answer", "time"), FLOWS.values(), ids=FLOWS)
def test_flow(flow, answer, time):
    network = Oracle(answer)
    torch.testing.assert_close(flow.denoise(network, FLOW_X, SIGMA, "y", "evaluation"), DATA)
    torch.testing.assert_close(network.t, time)
    assert torch.equal(network.x, FLOW_X) and network.inputs == ("y", "evaluation")
    torch.testing.assert_close(flow.velocity(answer, FLOW_X, SIGMA), NOISE - DATA)


@pytest.mark.parametrize("flow", [Flow(), Flow(clean_time=1), Flow("data")])
def test_denoise_and_velocity_are_one_step(flow):
    """(x - D) / sigma is the velocity, whatever the network answers."""
    answer = torch.randn_like(FLOW_X)
    clean = flow.denoise(Oracle(answer), FLOW_X, SIGMA)
    torch.testing.assert_close((FLOW_X - clean) / column(SIGMA, clean), flow.velocity(answer, FLOW_X, SIGMA))


def test_flow_sigmas_fall_evenly_from_noise_to_data():
    assert Flow().sigmas(4).tolist() == [1, 0.75, 0.5, 0.25, 0]


def ddpm_sigmas():
    """sigma of DDPM's 1,000 steps, one at a time: sqrt((1 - abar) / abar), abar the product of 1 - beta."""
    remaining, sigmas = 1.0, []
    for i in range(1000):
        remaining *= 1 - (1e-4 + (0.02 - 1e-4) * i / 999)
        sigmas.append(math.sqrt((1 - remaining) / remaining))
    return sigmas


def test_epsilon_has_ddpms_noise_levels():
    torch.testing.assert_close(Epsilon().table(), torch.tensor(ddpm_sigmas()))
    sigmas = Epsilon().sigmas(5)
    expected = [ddpm_sigmas()[i] for i in (999, 749, 500, 250, 0)]
    torch.testing.assert_close(sigmas, torch.tensor([*expected, 0.0]))


@given(st.integers(0, 999))
def test_epsilon_time_is_the_timestep(step):
    assert Epsilon().time(torch.tensor([ddpm_sigmas()[step]])).item() == pytest.approx(step, abs=0.02)


def test_epsilon_reads_its_noise_levels_once(monkeypatch):
    """They would be uploaded in every step."""
    made, other = [], Epsilon(beta_end=0.0123)
    monkeypatch.setattr(Epsilon, "table", lambda self, table=Epsilon.table: made.append(self) or table(self))
    first, second = (other.time(torch.tensor([1.0])) for _ in range(2))
    assert made == [other] and torch.equal(first, second)


def test_epsilon_time_rises_between_and_stops_at_the_ends():
    levels = torch.logspace(-2.2, 2.3, 500)
    time = Epsilon().time(levels)
    inside = (levels > ddpm_sigmas()[0]) & (levels < ddpm_sigmas()[-1])
    assert (time[inside].diff() > 0).all()
    assert (time[levels <= ddpm_sigmas()[0]] == 0).all() and (time[levels >= ddpm_sigmas()[-1]] == 999).all()


def test_epsilon():
    sigma = torch.tensor([0.05, 1.0, 80.0])
    x = DATA + column(sigma, DATA) * NOISE
    network = Oracle(NOISE)
    torch.testing.assert_close(Epsilon().denoise(network, x, sigma, "y"), DATA, rtol=1e-3, atol=1e-4)
    remaining = 1 / (1 + sigma**2)  # what DDPM calls alpha-bar: its x is scaled to unit variance
    scaled = [a.sqrt() * d + (1 - a).sqrt() * n for a, d, n in zip(remaining, DATA, NOISE, strict=True)]
    torch.testing.assert_close(network.x, torch.stack(scaled))
    assert network.inputs == ("y",)


@pytest.mark.parametrize("level", [0.002, 0.5, 3.0, 80.0])
def test_edm_is_table_1(level):
    data, answer = 0.5, torch.randn(1, 2, 4, 4)
    x = DATA[:1] + level * NOISE[:1]
    network = Oracle(answer)
    clean = EDM().denoise(network, x, torch.tensor([level]))
    skip = data**2 / (level**2 + data**2)
    out = level * data / math.sqrt(level**2 + data**2)
    torch.testing.assert_close(clean, skip * x + out * answer)
    torch.testing.assert_close(network.x, x / math.sqrt(level**2 + data**2))
    assert network.t.item() == pytest.approx(math.log(level) / 4)


def test_edm_sigmas_are_equation_5():
    sigmas = EDM().sigmas(18)
    expected = [(80 ** (1 / 7) + i / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7 for i in range(18)]
    torch.testing.assert_close(sigmas, torch.tensor([*expected, 0.0]), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("prediction", [Flow(), Epsilon(), EDM()])
def test_sigmas_fall_to_zero(prediction):
    for steps in (1, 2, 25):
        sigmas = prediction.sigmas(steps)
        assert len(sigmas) == steps + 1
        assert (sigmas.diff() < 0).all() and sigmas[-1] == 0


def test_kinds_have_the_names_in_files():
    assert {"flow": Flow, "eps": Epsilon, "edm": EDM} == KINDS


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_velocity_along_growing_time_is_the_other_one_of_opposite_sign_to_the_bit(dtype):
    x, output, sigma = torch.randn(2, 4, 8, 8).to(dtype), torch.randn(2, 4, 8, 8).to(dtype), torch.tensor([0.3, 0.9])
    sigma = sigma.to(dtype)
    found = Flow(clean_time=1).denoise(lambda x, t: output, x, sigma)
    assert torch.equal(found, Flow().denoise(lambda x, t: -output, x, sigma))
