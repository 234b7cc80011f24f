"""What a network predicts, and how its output becomes D, the prediction of the clean image.

Every kind works on x = signal + sigma * noise in its own units (`Flow`: signal scaled by 1 - sigma), and an Euler step
is the same for all: dx / dsigma = (x - D) / sigma (arXiv 2206.00364, algorithm 1). Every kind has

    sigmas(steps)                      -> [steps + 1] in float32: the noise levels of a run, falling, the last 0
    time(sigma)                        [N] -> [N]: what the network takes for a noise level
    denoise(network, x, sigma, ...)    x [N, ...], sigma [N], and what else the network takes -> D like x
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..once import made_once


def column(sigma: Tensor, x: Tensor) -> Tensor:
    """sigma [N] shaped to multiply x [N, ...]."""
    return sigma.reshape(-1, *(1,) * (x.ndim - 1))


@dataclass(frozen=True)
class Flow:
    """Flow matching: x = (1 - sigma) * data + sigma * noise, sigma in [0, 1] (arXiv 2601.01608, eq. 1-2).

    `output`: "velocity" (along growing time) or "data". `clean_time`: the network's time at the data; SiT and the
    paper count from noise 0 to data 1, CompVis/tread from data 0 to noise 1. `time_scale` multiplies that time.
    `shift` spends more of a schedule's steps near the noise (arXiv 2403.03206, eq. 23). `levels` is the number of noise
    levels in training where a schedule ends at the lowest of them before it jumps to 0 (diffusers'
    FlowMatchEulerDiscreteScheduler, the host's scheduler "normal"); 0 where it runs evenly down to 0. The noise has the
    standard deviation `noise_scale`. `floor` bounds the sigma that a "data" output is divided by.
    """

    output: str = "velocity"
    clean_time: int = 0
    time_scale: float = 1.0
    shift: float = 1.0
    levels: int = 0
    noise_scale: float = 1.0
    floor: float = 1e-4

    def sigmas(self, steps: int) -> Tensor:
        if not self.levels:
            return self.shifted(torch.linspace(1, 0, steps + 1))
        lowest = self.shifted(torch.tensor(1 / self.levels, dtype=torch.float64))
        even = torch.linspace(1, float(lowest), steps, dtype=torch.float64)
        return torch.cat([self.shifted(even).float(), torch.zeros(1)])

    def shifted(self, sigma: Tensor) -> Tensor:
        return self.shift * sigma / (1 + (self.shift - 1) * sigma)

    def time(self, sigma: Tensor) -> Tensor:
        time = sigma if self.clean_time == 0 else 1 - sigma
        return time if self.time_scale == 1 else time * self.time_scale

    def velocity(self, output: Tensor, x: Tensor, sigma: Tensor) -> Tensor:
        """The network's output as noise - data, for x [N, ...] at sigma [N]."""
        if self.output == "data":
            return (x - output) / column(sigma, x).clamp(min=self.floor)
        return output if self.clean_time == 0 else -output

    def denoise(self, network, x: Tensor, sigma: Tensor, *inputs) -> Tensor:
        output = network(x, self.time(sigma), *inputs)
        if self.output == "velocity" and self.clean_time:  # a sum, to spare the sign an operation of its own
            return x + column(sigma, x) * output
        return x - column(sigma, x) * self.velocity(output, x, sigma)


@dataclass(frozen=True)
class Epsilon:
    """Noise prediction over 1,000 steps of a linear beta schedule (facebookresearch/DiT): x = data + sigma * noise."""

    noise_scale: ClassVar[float] = 1.0
    beta_start: float = 1e-4
    beta_end: float = 0.02
    timesteps: int = 1000

    def table(self) -> Tensor:
        """sigma of every timestep, rising: [timesteps]."""
        betas = torch.linspace(self.beta_start, self.beta_end, self.timesteps, dtype=torch.float64)
        remaining = torch.cumprod(1 - betas, dim=0)
        return ((1 - remaining) / remaining).sqrt().float()

    def sigmas(self, steps: int) -> Tensor:
        index = torch.linspace(self.timesteps - 1, 0, steps).round().long()
        return torch.cat([self.table()[index], torch.zeros(1)])

    def time(self, sigma: Tensor) -> Tensor:
        """The fractional timestep of sigma, interpolated over log sigma."""
        table = _log_table(self, sigma.device)
        log = sigma.float().log().clamp(table[0], table[-1])
        low = torch.searchsorted(table, log, right=True).sub(1).clamp(0, len(table) - 2)
        return low + (log - table[low]) / (table[low + 1] - table[low])

    def denoise(self, network, x: Tensor, sigma: Tensor, *inputs) -> Tensor:
        level = column(sigma, x)
        return x - level * network(x / (level**2 + 1).sqrt(), self.time(sigma), *inputs)


@made_once
def _log_table(prediction: Epsilon, device: torch.device) -> Tensor:
    return prediction.table().log().to(device)


@dataclass(frozen=True)
class EDM:
    """Preconditioned denoising (arXiv 2206.00364, table 1): x = data + sigma * noise."""

    noise_scale: ClassVar[float] = 1.0
    sigma_data: float = 0.5
    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = 7.0

    def sigmas(self, steps: int) -> Tensor:
        low, high = self.sigma_min ** (1 / self.rho), self.sigma_max ** (1 / self.rho)
        return torch.cat([torch.linspace(high, low, steps) ** self.rho, torch.zeros(1)])

    def time(self, sigma: Tensor) -> Tensor:
        return sigma.log() / 4

    def denoise(self, network, x: Tensor, sigma: Tensor, *inputs) -> Tensor:
        level, data = column(sigma, x), self.sigma_data
        total = level**2 + data**2
        output = network(x / total.sqrt(), self.time(sigma), *inputs)
        return x * data**2 / total + output * level * data / total.sqrt()


Prediction = Flow | Epsilon | EDM
KINDS: dict[str, type] = {"flow": Flow, "eps": Epsilon, "edm": EDM}
