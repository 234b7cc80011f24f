"""A guided step needs no more memory than CFG's, counted at every allocation of PyTorch's own allocator."""

from collections.abc import Callable

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from sparse_model.method.branches import Branch, Evaluation
from sparse_model.method.sparsity import Route, Sparsity
from sparse_model.networks.dit import DiT, DiTConfig

pytestmark = pytest.mark.slow


def peak(run: Callable[[], object]) -> int:
    """The most bytes that were allocated at once during a call."""
    with torch.inference_mode(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return most


def test_the_meter_sees_what_is_held_at_once():
    assert peak(lambda: torch.zeros(1000)) == 4000 <= peak(lambda: (torch.zeros(1000), torch.zeros(1000)))
    assert peak(lambda: (torch.zeros(1000), torch.zeros(1000))) == 8000


@pytest.mark.parametrize("gammas", [(0.5, 0.9), (0.1, 0.8), (0.0, 0.5), (0.0, 1.0)])
@pytest.mark.parametrize("shared", ["the condition", None], ids=["SG", "CFG + SG"])
@pytest.mark.parametrize("batch", [1, 4])
def test_a_sparse_step_stays_within_cfgs_memory(gammas, shared, batch):
    network = DiT(DiTConfig(32, 2, 4, 128, 8, 4, num_classes=9), Sparsity((Route(1, -2),))).eval()
    x, t, y = torch.randn(2 * batch, 4, 32, 32), torch.rand(2 * batch), torch.zeros(2 * batch, 9)
    sparse = Evaluation((Branch(gammas[0], 0, shared), Branch(gammas[1], 1, shared)))
    sparse = sparse.prepare(network, x)
    dense = Evaluation((Branch(0.0, 0), Branch(0.0, 1)))
    assert peak(lambda: network(x, t, y, sparse)) <= peak(lambda: network(x, t, y, dense))
