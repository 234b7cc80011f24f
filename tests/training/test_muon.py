"""Muon: the update of every matrix alone, in as many operations as there are shapes."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from sparse_model.training.muon import Muon

RATE, MOMENTUM, DECAY = 1e-2, 0.9, 0.1
SHAPES = (8, 8), (24, 8), (8, 16), (24, 8), (8, 8)


def newton_schulz(x):
    """The published iteration, for one matrix."""
    tall = len(x) > len(x.T)
    x = x.T if tall else x
    x = x / (x.norm() + 1e-7)
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.T if tall else x


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_every_matrix_is_updated_as_if_alone(dtype, tolerance):
    torch.manual_seed(0)
    parameters = [torch.nn.Parameter(torch.randn(shape)) for shape in (*SHAPES, (8, 8))]
    *_, untouched = parameters
    weights, means = [p.detach().clone() for p in parameters], [torch.zeros(p.shape) for p in parameters]
    optimizer = Muon(parameters, RATE, MOMENTUM, DECAY, dtype)
    for _ in range(3):
        for i, p in enumerate(parameters[:-1]):
            p.grad = torch.randn(p.shape)
            means[i] = MOMENTUM * means[i] + (1 - MOMENTUM) * p.grad
            update = newton_schulz((1 - MOMENTUM) * p.grad + MOMENTUM * means[i])
            weights[i] = (1 - RATE * DECAY) * weights[i] - RATE * 0.2 * max(p.shape) ** 0.5 * update
        optimizer.step()
    for p, weight, mean in zip(parameters[:-1], weights, means, strict=False):
        torch.testing.assert_close(p.detach(), weight, rtol=0, atol=tolerance)
        torch.testing.assert_close(optimizer.state[p]["momentum_buffer"], mean)
    assert torch.equal(untouched, weights[-1]) and not optimizer.state[untouched]


class Count(TorchDispatchMode):
    """Operations that are not views."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += not function.is_view
        return function(*args, **(kwargs or {}))


def test_more_matrices_of_a_shape_are_no_more_operations():
    counts = []
    for copies in (1, 6):
        parameters = [torch.nn.Parameter(torch.randn(shape)) for shape in SHAPES * copies]
        optimizer = Muon(parameters)
        for _ in range(2):  # the first one makes the state
            for p in parameters:
                p.grad = torch.randn(p.shape)
            with Count() as counter:
                optimizer.step()
        counts.append(counter.count)
    assert counts[0] == counts[1] < 30 * len(set(SHAPES))
