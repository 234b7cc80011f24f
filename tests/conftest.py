"""What the tests of the method share."""

import pytest
import torch
from hypothesis import settings

from sparse_model.method.sparsity import Route, Sparsity
from sparse_model.networks.dit import DiT, DiTConfig

pytest_plugins = ["workers"]

settings.register_profile("no deadline", deadline=None)  # a busy machine is not a failure
settings.load_profile("no deadline")


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def pytest_terminal_summary(terminalreporter):
    """Says loudly what a green run has not tested."""
    for report in terminalreporter.stats.get("skipped", []):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
        if "FLOORS NOT TESTED" in reason:
            terminalreporter.write_line(reason.removeprefix("Skipped: "), red=True, bold=True)


@pytest.fixture(scope="session")
def tiny_dit():
    """A DiT of 5 layers for [N, 4, 8, 8] (16 tokens) and 3 classes, random weights, routed over layers 1 to 3."""
    network = DiT(DiTConfig(8, 2, 4, 32, 5, 2, 2.0, num_classes=3), Sparsity((Route(1, 3, 0.5),)))
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.15)
    return network.eval().requires_grad_(False)
