"""TR-DiT: its published size and cost, its route, its text."""

import pytest
import torch
from torch import nn

from sparse_model.checkpoints.checkpoint import build
from sparse_model.checkpoints.spec import ModelSpec
from sparse_model.conditions.text import Text
from sparse_model.cost import step_cost
from sparse_model.method.branches import Branch, Evaluation
from sparse_model.method.schedule import PRESETS
from sparse_model.method.sparsity import Route, Sparsity
from sparse_model.method.tokens import subsets
from sparse_model.networks.layers import Backend
from sparse_model.networks.trdit import TRDiT, TRDiTConfig

TINY = TRDiTConfig(8, 2, 4, width=32, depth=5, heads=2, text_width=12, text_depth=1)


@pytest.fixture(scope="module")
def network():
    network = TRDiT(TINY, Sparsity((Route(1, -2),)))
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.4)
    return network.eval().requires_grad_(False)


@pytest.fixture
def inputs():
    """x, t and prompts of 6 tokens, 4 of them words."""
    mask = (torch.arange(6) < 4).expand(2, 6)
    return torch.randn(2, 4, 8, 12), torch.tensor([0.3, 0.8]), Text(torch.randn(2, 6, 12), mask)


def test_the_published_size_and_cost():
    spec = ModelSpec.published("TR-DiT-2.5B", Sparsity((Route(2, 30),)))
    network = build(spec, Backend(device="meta"))
    assert 2.4e9 < sum(value.numel() for value in network.parameters()) < 2.6e9
    # rows of 16 bits per number begin at multiples of 128 bytes
    assert all(module.in_features % 64 == 0 for module in network.modules() if isinstance(module, nn.Linear))
    cost = step_cost(spec, PRESETS["HPSv3"], 50)
    assert cost.total < 0.65 * cost.cfg  # the paper measures 0.49 against 0.32 pictures a second


def test_padding_is_not_read(network, inputs):
    x, t, y = inputs
    changed = Text(torch.where(y.mask.unsqueeze(2), y.embeddings, 9.0), y.mask)
    assert torch.equal(network(x, t, changed), network(x, t, y))
    changed = Text(torch.where(y.mask.unsqueeze(2), 9.0, y.embeddings), y.mask)
    assert not torch.allclose(network(x, t, changed), network(x, t, y), atol=1e-3)


def test_time_and_place_are_read(network, inputs):
    x, t, y = inputs
    assert not torch.allclose(network(x, t.flip(0), y), network(x, t, y), atol=1e-3)
    rolled = network(x.roll(2, dims=3), t, y).roll(-2, dims=3)
    assert not torch.allclose(rolled, network(x, t, y), atol=1e-3)


@pytest.mark.parametrize("shared", [True, False])
def test_branches_of_one_pass_are_branches_alone(network, inputs, shared):
    x, t, y = inputs
    other = y if shared else Text(y.embeddings.flip(1), y.mask)
    branches = Branch(0.25, 0, "c" if shared else None), Branch(0.75, 1, "c" if shared else None)
    both = Text(*(torch.cat(pair) for pair in zip(y, other, strict=True)))
    together = network(x.repeat(2, 1, 1, 1), t.repeat(2), both, Evaluation(branches, subsets(3, 1))).chunk(2)
    for branch, own, output in zip(branches, (y, other), together, strict=True):
        alone = network(x, t, own, Evaluation((branch,), subsets(3, 1)))
        torch.testing.assert_close(output, alone, rtol=1e-4, atol=1e-5)


def test_dropped_tokens_wait_and_text_stays(network, inputs):
    seen = []
    hooks = [
        b.cross.register_forward_pre_hook(lambda _, a: seen.append((a[0].shape[1], a[1].shape[2])))
        for b in network.blocks
    ]
    network(*inputs, Evaluation((Branch(0.5),)))
    for hook in hooks:
        hook.remove()
    assert seen == [(24, 6), (12, 6), (12, 6), (12, 6), (24, 6)]


def test_layers_have_no_biases_but_those_of_time(network):
    biased = {
        name for name, module in network.named_modules() if isinstance(module, nn.Linear) and module.bias is not None
    }
    assert biased == {"t_embedder.mlp.0", "t_embedder.mlp.2", "t_modulation.1"}
