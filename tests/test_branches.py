"""Branches of one batch, each on its own tokens, against a slow reading of the same rules one sample at a time."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sparse_model.branches import DENSE, Branch, Evaluation, run_layers, run_masked
from sparse_model.models.dit import DiT
from sparse_model.sparsity import Route, Sparsity
from sparse_model.tokens import SubsetSeed, keep_count


class Mixer(nn.Module):
    """A layer whose every token depends on all tokens that run with it, its sample's condition and its position."""

    def __init__(self, number: int):
        super().__init__()
        self.number, self.calls = number, []

    def forward(self, x, *inputs):
        self.calls.append([x, *inputs])
        condition, position = inputs[0], inputs[1] if len(inputs) > 1 else torch.zeros_like(x)
        return torch.tanh(x + x.mean(dim=1, keepdim=True) + condition[:, None] + self.number * position)


def mixers(depth: int) -> list[Mixer]:
    return [Mixer(i + 1) for i in range(depth)]


def inputs(batch: int, tokens: int = 12, width: int = 4, seed: int = 0):
    """x, condition [batch, width], position [batch, tokens, width]."""
    generator = torch.Generator().manual_seed(seed)
    shapes = (batch, tokens, width), (batch, width), (batch, tokens, width)
    return [torch.randn(shape, generator=generator) for shape in shapes]


def one_by_one(layers, routes, evaluation, x, condition, position):
    """run_layers for a single branch, layer by layer and sample by sample. `routes` holds (first, last) pairs."""
    (branch,) = evaluation.branches
    done = []
    for i in range(len(x)):
        current = x[i : i + 1].clone()
        for number, layer in enumerate(layers):
            route = next((r for r, (first, last) in enumerate(routes) if first <= number <= last), None)
            keep = list(range(x.shape[1]))
            if route is not None:
                seed = evaluation.seed
                alone = SubsetSeed(seed.seed + i, seed.evaluation, seed.selection)
                keep = alone.draw(branch.index, 1, x.shape[1], branch.gamma, route)[0].tolist()
            if keep:
                current[:, keep] = layer(current[:, keep], condition[i : i + 1], position[i : i + 1, keep])
        done.append(current)
    return torch.cat(done)


@given(
    gammas=st.lists(st.sampled_from([0.0, 0.25, 0.5, 0.9, 1.0]), min_size=1, max_size=4),
    batch=st.integers(1, 3),
    routes=st.sampled_from([(), ((0, 5),), ((1, 3),), ((1, 2), (4, 4)), ((0, 1), (2, 5))]),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=50)
def test_a_batch_of_branches_is_every_sample_alone(gammas, batch, routes, seed):
    x, condition, position = inputs(batch * len(gammas), seed=seed % 1000)
    branches = tuple(Branch(gamma, index) for index, gamma in enumerate(gammas))
    sparsity = Sparsity(tuple(Route(first, last) for first, last in routes))
    together = run_layers(
        mixers(6),
        sparsity,
        Evaluation(branches, SubsetSeed(seed, 3)),
        x,
        per_sample=(condition,),
        per_token=(position,),
    )
    for i, branch in enumerate(branches):
        rows = slice(i * batch, (i + 1) * batch)
        values = [value[rows] for value in (x, condition, position)]
        expected = one_by_one(mixers(6), routes, Evaluation((branch,), SubsetSeed(seed, 3)), *values)
        torch.testing.assert_close(together[rows], expected, rtol=1e-5, atol=1e-5)


def test_gamma_0_is_dense_to_the_bit(tiny_dit):
    x, t, y = torch.randn(4, 4, 8, 8), torch.rand(4), torch.eye(3)[[0, 1, 2, 0]]
    zero = Evaluation((Branch(0.0, 0), Branch(0.0, 1)), SubsetSeed(9))
    plain = DiT(tiny_dit.config).eval()
    plain.load_state_dict(tiny_dit.state_dict())
    assert torch.equal(tiny_dit(x, t, y, zero), tiny_dit(x, t, y, DENSE))
    assert torch.equal(tiny_dit(x, t, y), plain(x, t, y))


def test_tokens_outside_the_subset_leave_the_route_as_they_entered(tiny_dit):
    seen = {}
    hooks = [
        tiny_dit.blocks[i].register_forward_pre_hook(lambda _, values, i=i: seen.update({i: values[0].clone()}))
        for i in range(5)
    ]
    hooks.append(tiny_dit.blocks[0].register_forward_hook(lambda _, __, output: seen.update(entered=output.clone())))
    seed = SubsetSeed(4, 2)
    tiny_dit(torch.randn(3, 4, 8, 8), torch.rand(3), torch.eye(3), Evaluation((Branch(0.75),), seed))
    for hook in hooks:
        hook.remove()
    assert [seen[i].shape[1] for i in range(5)] == [16, 4, 4, 4, 16]
    index = seed.draw(0, 3, 16, 0.75)
    outside = torch.ones(3, 16, dtype=torch.bool).scatter(1, index, False)
    assert torch.equal(seen[4][outside], seen["entered"][outside])
    assert not torch.isclose(seen[4][~outside], seen["entered"][~outside]).all(dim=-1).any()


def test_gamma_1_runs_nothing_in_the_route():
    layers = mixers(5)
    x, condition, _ = inputs(2)
    output = run_layers(layers, Sparsity((Route(1, 3),)), Evaluation((Branch(1.0),)), x, per_sample=(condition,))
    assert [len(layer.calls) for layer in layers] == [1, 0, 0, 0, 1]
    first, *_, last = mixers(5)
    assert torch.equal(output, last(first(x, condition), condition))


def test_one_batch_or_two_calls_in_any_order(tiny_dit):
    x, t, y = torch.randn(2, 4, 8, 8), torch.tensor([0.3, 0.8]), torch.eye(3)[:2]
    strong, weak, seed = Branch(0.25, 0), Branch(0.75, 1), SubsetSeed(11, 5)

    def run(*branches):
        n = len(branches)
        return tiny_dit(x.repeat(n, 1, 1, 1), t.repeat(n), y.repeat(n, 1), Evaluation(branches, seed)).chunk(n)

    (a, b), (c, d) = run(strong, weak), run(weak, strong)
    for together, alone in ((a, run(strong)[0]), (d, run(strong)[0]), (b, run(weak)[0]), (c, run(weak)[0])):
        torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(a, b, atol=1e-2)


def test_subsets_do_not_depend_on_the_split():
    strong, weak, seed = Branch(0.5, 0), Branch(0.9, 1), SubsetSeed(2, 8)
    x = torch.empty(6, 20, 3)
    together = list(Evaluation((strong, weak), seed).subsets(x))
    apart = [next(iter(Evaluation((branch,), seed).subsets(x[:3]))) for branch in (strong, weak)]
    assert [rows for rows, _ in together] == [slice(0, 3), slice(3, 6)]
    assert all(torch.equal(a, b) for (_, a), (_, b) in zip(together, apart, strict=True))


@pytest.mark.parametrize("selection", ["exact", "bernoulli"])
def test_neighbours_of_one_gamma_share_a_call_but_not_their_tokens(selection):
    layers = mixers(3)
    x, condition, _ = inputs(8, tokens=40)
    table = torch.arange(40.0).reshape(1, 40, 1).expand(1, 40, 4)
    branches = (Branch(0.5, 0), Branch(0.5, 1), Branch(0.75, 2), Branch(0.5, 3))
    evaluation = Evaluation(branches, SubsetSeed(3, 1, selection))
    run_layers(layers, Sparsity((Route(1, 1),)), evaluation, x, (condition,), (table,))
    assert [call[0].shape[0] for call in layers[1].calls] == [4, 2, 2]
    first, second = layers[1].calls[0][2].chunk(2)
    assert not torch.equal(first, second)


def test_two_routes_keep_different_tokens():
    seed = SubsetSeed(1, 1)
    layers = mixers(4)
    x, condition, _ = inputs(1, tokens=40)
    table = torch.arange(40.0).reshape(1, 40, 1).expand(1, 40, 4)
    run_layers(
        layers, Sparsity((Route(0, 1), Route(2, 3))), Evaluation((Branch(0.5),), seed), x, (condition,), (table,)
    )
    tokens = [layer.calls[0][2][0, :, 0].tolist() for layer in layers]
    assert tokens[0] == tokens[1] == seed.draw(0, 1, 40, 0.5, 0)[0].tolist()
    assert tokens[2] == tokens[3] == seed.draw(0, 1, 40, 0.5, 1)[0].tolist()
    assert tokens[0] != tokens[2]


@pytest.mark.parametrize("shared", [True, False])
def test_per_token_tables_follow_their_tokens_and_conditions_their_samples(shared):
    """A table [1, T, ...] (positions) or [N, T, ...] (a mask) is gathered; a condition [N, ...] stays whole."""
    seed, tokens = SubsetSeed(6, 2), 10
    layers = mixers(3)
    x, _, _ = inputs(4, tokens)
    condition = torch.arange(4.0)[:, None].expand(4, 4)
    rows = torch.arange(1.0 if shared else 4.0) * 100
    table = (rows[:, None] + torch.arange(10.0))[:, :, None].expand(-1, -1, 4)
    evaluation = Evaluation((Branch(0.2, 0), Branch(0.6, 1)), seed)
    run_layers(layers, Sparsity((Route(1, 1),)), evaluation, x, per_sample=(condition,), per_token=(table,))
    for (_, samples, positions), branch in zip(layers[1].calls, evaluation.branches, strict=True):
        index = seed.draw(branch.index, 2, tokens, branch.gamma)
        first = 2 * branch.index
        assert samples[:, 0].tolist() == [first, first + 1]
        own = torch.zeros(2) if shared else rows[first : first + 2]
        assert torch.equal(positions[:, :, 0], own[:, None] + index)
    for layer in (layers[0], layers[2]):
        (dense,) = layer.calls
        assert dense[0].shape[1] == tokens and torch.equal(dense[2], table)


def test_without_routes_a_network_is_dense():
    x, condition, _ = inputs(2)
    sparse = run_layers(mixers(3), Sparsity(), Evaluation((Branch(0.9),)), x, per_sample=(condition,))
    assert torch.equal(sparse, run_layers(mixers(3), Sparsity(), DENSE, x, per_sample=(condition,)))


def test_without_a_seed_torchs_generator_decides():
    evaluation, x = Evaluation((Branch(0.5),), seed=None), torch.empty(2, 30, 1)

    def draw(seed=None):
        if seed is not None:
            torch.manual_seed(seed)
        return next(iter(evaluation.subsets(x)))[1]

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw())
    assert draw(1).shape == (2, 15)


@pytest.mark.parametrize(("route", "message"), [(Route(3, 1), "reversed"), (Route(1, 5), "leaves the network")])
def test_a_route_that_does_not_fit_stops_the_network(tiny_dit, route, message):
    wrong = DiT(tiny_dit.config, Sparsity((route,)))
    with pytest.raises(ValueError, match=message):
        wrong(torch.randn(1, 4, 8, 8), torch.rand(1), torch.eye(3)[:1], Evaluation((Branch(0.5),)))


@given(st.lists(st.sampled_from([0.0, 0.3, 0.5, 1.0]), min_size=1, max_size=3), st.integers(1, 2), st.integers(0, 99))
@settings(max_examples=30)
def test_masking_runs_on_kept_tokens_and_fills_in_the_rest(gammas, batch, seed):
    class Widen(nn.Module):
        def forward(self, x, condition):
            return torch.cat([x, x + condition[:, None]], dim=-1)

    x, condition, _ = inputs(batch * len(gammas), seed=seed)
    token = torch.randn(1, 1, 8)
    evaluation = Evaluation(tuple(Branch(g, i) for i, g in enumerate(gammas)), SubsetSeed(seed))
    output = run_masked((Mixer(1), Widen()), evaluation, x, token, per_sample=(condition,))
    for i, branch in enumerate(evaluation.branches):
        index = evaluation.seed.draw(i, batch, 12, branch.gamma)
        assert index.shape[1] == keep_count(12, branch.gamma)
        for j in range(batch):
            row, keep = i * batch + j, index[j].tolist()
            expected = token[0].repeat(12, 1)
            if keep:
                own = condition[row : row + 1]
                expected[keep] = Widen()(Mixer(1)(x[row : row + 1, keep], own), own)[0]
            torch.testing.assert_close(output[row], expected, rtol=1e-5, atol=1e-6)


def test_masking_at_gamma_0_is_dense_to_the_bit():
    x, condition, _ = inputs(3)
    layers = mixers(2)
    dense = layers[1](layers[0](x, condition), condition)
    assert torch.equal(run_masked(layers, Evaluation((Branch(0.0),)), x, torch.zeros(1, 1, 4), (condition,)), dense)
