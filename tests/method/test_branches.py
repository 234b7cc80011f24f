"""Branches of one pass, each on its own tokens, against a slow reading of the same rules one sample at a time."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sparse_model.method import sparse_pass
from sparse_model.method.branches import DENSE, Branch, Evaluation
from sparse_model.method.packing import WHOLE, Packing
from sparse_model.method.sparsity import Route, Sparsity
from sparse_model.method.tokens import keep_count, subsets
from sparse_model.networks.dit import DiT
from sparse_model.networks.layers import attend
from sparse_model.networks.maskdit import MaskDiT, MaskDiTConfig


class Mixer(nn.Module):
    """A layer whose every token depends on all tokens of its segment, its branch's condition and its position."""

    def __init__(self, number: int):
        super().__init__()
        self.number, self.calls = number, []

    def forward(self, x, *inputs):
        self.calls.append([x, *inputs])
        condition, *positions, packing = inputs
        mean = packing.spread(torch.stack([part.mean(dim=1) for part in packing.split(x)], dim=1))
        position = positions[0] if positions else torch.zeros_like(x)
        return torch.tanh(x + mean + packing.spread(condition) + self.number * position)


def mixers(depth: int) -> list[Mixer]:
    return [Mixer(i + 1) for i in range(depth)]


def inputs(batch: int, tokens: int = 12, width: int = 4, seed: int = 0):
    """x, condition [batch, 1, width], position [batch, tokens, width]."""
    generator = torch.Generator().manual_seed(seed)
    shapes = (batch, tokens, width), (batch, 1, width), (batch, tokens, width)
    return [torch.randn(shape, generator=generator) for shape in shapes]


def run_layers(layers, sparsity, evaluation, x, *given):
    """The evaluation of one row per distinct input, its tokens drawn as a network draws them."""
    batch = len(x) // (1 + max(evaluation.sources))
    return sparse_pass.run_layers(layers, sparsity, evaluation.drawn(sparsity.count, batch, x.shape[1]), x, *given)


def run_masked(layers, evaluation, x, fill, condition):
    batch = len(x) // (1 + max(evaluation.sources))
    return sparse_pass.run_masked(layers, evaluation.drawn(1, batch, x.shape[1]), x, fill, (condition,))


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
                kept = evaluation.subsets
                alone = subsets(kept.orders.seed + i, kept.evaluation, kept.selection)
                keep = alone.draw(branch.index, 1, x.shape[1], branch.gamma, route)[0].tolist()
            if keep:
                current[:, keep] = layer(current[:, keep], condition[i : i + 1], position[i : i + 1, keep], WHOLE)
        done.append(current)
    return torch.cat(done)


@given(
    chunks=st.lists(
        st.tuples(st.sampled_from([0.0, 0.25, 0.5, 0.9, 1.0]), st.sampled_from([None, "a", "b"])),
        min_size=1,
        max_size=4,
    ),
    batch=st.integers(1, 3),
    routes=st.sampled_from([(), ((0, 5),), ((1, 3),), ((1, 2), (4, 4)), ((0, 1), (2, 5))]),
    own_positions=st.booleans(),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=80)
def test_a_pass_of_branches_is_every_sample_alone(chunks, batch, routes, own_positions, seed):
    """Whatever branches share an input, however sparse they are, however many routes there are."""
    branches = tuple(Branch(gamma, index, source) for index, (gamma, source) in enumerate(chunks))
    evaluation = Evaluation(branches, subsets(seed, 3))
    distinct = 1 + max(evaluation.sources)
    x, condition, position = inputs(batch * distinct, seed=seed % 1000)
    if not own_positions:
        position = position[:1]
    sparsity = Sparsity(tuple(Route(first, last) for first, last in routes))
    together, conditions = run_layers(mixers(6), sparsity, evaluation, x, (condition,), (position,))
    assert together.shape[0] == conditions.shape[0] == batch * len(branches)
    for i, (branch, source) in enumerate(zip(branches, evaluation.sources, strict=True)):
        rows = slice(source * batch, (source + 1) * batch)
        values = x[rows], condition[rows], position[rows] if own_positions else position.expand(batch, -1, -1)
        expected = one_by_one(mixers(6), routes, Evaluation((branch,), subsets(seed, 3)), *values)
        torch.testing.assert_close(together[i * batch : (i + 1) * batch], expected, rtol=1e-5, atol=1e-5)
        assert torch.equal(conditions[i * batch : (i + 1) * batch], condition[rows])


def test_sources_number_distinct_inputs_and_none_is_its_own():
    labels = "a", None, "b", "a", None
    evaluation = Evaluation(tuple(Branch(0.5, i, label) for i, label in enumerate(labels)))
    assert evaluation.sources == (0, 1, 2, 0, 3)
    x = torch.arange(10.0).reshape(10, 1)
    x[6:8] = x[:2]  # the fourth chunk is the first one again
    drawn = evaluation.drawn(1, 2, 8)
    (distinct,) = drawn.distinct(x)
    assert distinct.flatten().tolist() == [0, 1, 2, 3, 4, 5, 8, 9]
    assert torch.equal(*drawn.expand(distinct), x)


def test_unshared_chunks_are_not_copied():
    x = torch.randn(4, 2)
    drawn = Evaluation((Branch(0, 0), Branch(0, 1))).drawn(1, 2, 8)
    assert drawn.distinct(x)[0] is x and drawn.expand(x)[0] is x


def test_layers_in_front_of_a_route_run_once_for_a_shared_input():
    layers = mixers(5)
    x, condition, _ = inputs(2, tokens=20)
    branches = Branch(0.5, 0, "c"), Branch(0.9, 1, "c")
    run_layers(layers, Sparsity((Route(1, 3),)), Evaluation(branches), x, (condition,))
    assert [tuple(layer.calls[0][0].shape[:2]) for layer in layers] == [(2, 20), (2, 12), (2, 12), (2, 12), (4, 20)]
    assert [layer.calls[0][-1].lengths for layer in layers] == [(), (10, 2), (10, 2), (10, 2), ()]
    assert [layer.calls[0][1].shape[1] for layer in layers] == [1] * 5  # one condition for both segments
    assert all(len(layer.calls) == 1 for layer in layers)


def test_different_inputs_bring_their_conditions_along():
    layers = mixers(3)
    x, condition, _ = inputs(4, tokens=20)
    run_layers(layers, Sparsity((Route(1, 1),)), Evaluation((Branch(0.5, 0), Branch(0.9, 1))), x, (condition,))
    assert torch.equal(layers[1].calls[0][1], torch.stack([condition[:2, 0], condition[2:, 0]], dim=1))


@pytest.mark.parametrize("gammas", [(0.5, 0.75), (0.0, 0.0), (0.0, 0.75), (0.25, 1.0)])
def test_sharing_changes_nothing_but_the_time(tiny_dit, gammas):
    """The same products, in matrices of other sizes: to the bit on some processors, within rounding on all."""
    x, t, y = torch.randn(2, 4, 8, 8), torch.tensor([0.3, 0.8]), torch.eye(3)[:2]
    doubled = x.repeat(2, 1, 1, 1), t.repeat(2), y.repeat(2, 1)

    def run(*sources):
        branches = tuple(
            Branch(gamma, i, source) for i, (gamma, source) in enumerate(zip(gammas, sources, strict=True))
        )
        return tiny_dit(*doubled, Evaluation(branches, subsets(8, 1)))

    torch.testing.assert_close(run("same", "same"), run(None, None), rtol=1e-5, atol=1e-5)


def test_a_prepared_evaluation_is_the_same_pass(tiny_dit):
    x, t, y = torch.randn(4, 4, 8, 8), torch.rand(2).repeat(2), torch.eye(3)[[0, 1, 0, 1]]
    evaluation = Evaluation((Branch(0.5, 0), Branch(0.75, 1)), subsets(8, 1))
    prepared = evaluation.prepare(tiny_dit, x)
    assert [[tuple(index.shape) for index in route] for route in prepared.kept] == [[(2, 8), (2, 4)]]
    assert torch.equal(tiny_dit(x, t, y, prepared), tiny_dit(x, t, y, evaluation))
    dense = Evaluation((Branch(0.0, 0), Branch(0.0, 1))).prepare(tiny_dit, x)
    assert not dense.sparse and torch.equal(tiny_dit(x, t, y, dense), tiny_dit(x, t, y))


def test_gamma_0_is_dense_to_the_bit(tiny_dit):
    x, t, y = torch.randn(4, 4, 8, 8), torch.rand(4), torch.eye(3)[[0, 1, 2, 0]]
    zero = Evaluation((Branch(0.0, 0), Branch(0.0, 1)), subsets(9))
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
    seed = subsets(4, 2)
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
    output, _ = run_layers(layers, Sparsity((Route(1, 3),)), Evaluation((Branch(1.0),)), x, (condition,))
    assert [len(layer.calls) for layer in layers] == [1, 0, 0, 0, 1]
    first, *_, last = mixers(5)
    assert torch.equal(output, last(first(x, condition, WHOLE), condition, WHOLE))


def test_one_batch_or_two_calls_in_any_order(tiny_dit):
    x, t, y = torch.randn(2, 4, 8, 8), torch.tensor([0.3, 0.8]), torch.eye(3)[:2]
    strong, weak, seed = Branch(0.25, 0, "c"), Branch(0.75, 1, "c"), subsets(11, 5)

    def run(*branches):
        n = len(branches)
        return tiny_dit(x.repeat(n, 1, 1, 1), t.repeat(n), y.repeat(n, 1), Evaluation(branches, seed)).chunk(n)

    (a, b), (c, d) = run(strong, weak), run(weak, strong)
    for together, alone in ((a, run(strong)[0]), (d, run(strong)[0]), (b, run(weak)[0]), (c, run(weak)[0])):
        torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(a, b, atol=1e-2)


def test_subsets_do_not_depend_on_the_split():
    strong, weak, seed = Branch(0.5, 0), Branch(0.9, 1), subsets(2, 8)
    together = Evaluation((strong, weak), seed).draw(0, 3, 20, None)
    apart = [Evaluation((branch,), seed).draw(0, 3, 20, None)[0] for branch in (strong, weak)]
    assert [tuple(index.shape) for index in together] == [(3, 10), (3, 2)]
    assert all(torch.equal(a, b) for a, b in zip(together, apart, strict=True))


def test_branches_of_one_gamma_do_not_share_their_tokens():
    first, second = Evaluation((Branch(0.5, 0, "c"), Branch(0.5, 1, "c")), subsets(3, 1)).draw(0, 4, 40, None)
    assert not (first == second).all(dim=1).any()


def test_two_routes_keep_different_tokens():
    seed = subsets(1, 1)
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
    """A table [1, T, ...] (positions) or [N, T, ...] (a mask) is gathered; a condition [N, 1, ...] stays whole."""
    seed, tokens = subsets(6, 2), 10
    layers = mixers(3)
    x, _, _ = inputs(4, tokens)
    condition = torch.arange(4.0)[:, None, None].expand(4, 1, 4)
    rows = torch.arange(1.0 if shared else 4.0) * 100
    table = (rows[:, None] + torch.arange(10.0))[:, :, None].expand(-1, -1, 4)
    evaluation = Evaluation((Branch(0.2, 0), Branch(0.6, 1)), seed)
    run_layers(layers, Sparsity((Route(1, 1),)), evaluation, x, (condition,), (table,))
    _, samples, positions, packing = layers[1].calls[0]
    assert packing == Packing((8, 4))
    assert samples[:, :, 0].tolist() == [[0, 2], [1, 3]]
    for branch, part in zip(evaluation.branches, packing.split(positions), strict=True):
        index = seed.draw(branch.index, 2, tokens, branch.gamma)
        own = torch.zeros(2) if shared else rows[2 * branch.index : 2 * branch.index + 2]
        assert torch.equal(part[:, :, 0], own[:, None] + index)
    for layer in (layers[0], layers[2]):
        (dense,) = layer.calls
        assert dense[0].shape[1] == tokens and torch.equal(dense[2], table)


@pytest.mark.parametrize("lengths", [(), (6,), (3, 3), (4, 2), (1, 2, 3), (2, 2, 2)])
def test_attention_stays_within_segments(lengths):
    q, k, v = torch.randn(3, 2, 6, 8)
    packing, edges = Packing(lengths), [sum(lengths[:i]) for i in range(len(lengths) + 1)] if lengths else [0, 6]
    expected = [attend(q[:, a:b], k[:, a:b], v[:, a:b], 2) for a, b in itertools.pairwise(edges)]
    torch.testing.assert_close(packing.attend(attend, q, k, v, 2), torch.cat(expected, dim=1))


@pytest.mark.parametrize("contexts", [1, 3])
@pytest.mark.parametrize("masked", [False, True])
def test_cross_attention_reads_the_segments_own_context(contexts, masked):
    packing, q = Packing((1, 2, 3)), torch.randn(2, 6, 8)
    k, v = torch.randn(2, 2, contexts, 5, 8)
    bias = torch.randn(2, contexts, 5) if masked else None
    output = packing.split(packing.attend_to(attend, q, k, v, 2, bias))
    for s, part in enumerate(packing.split(q)):
        own = s if contexts > 1 else 0
        expected = attend(part, k[:, own], v[:, own], 2, bias[:, own : own + 1] if masked else None)
        torch.testing.assert_close(output[s], expected)


def test_without_routes_a_network_is_dense():
    x, condition, _ = inputs(2)
    sparse, _ = run_layers(mixers(3), Sparsity(), Evaluation((Branch(0.9),)), x, (condition,))
    assert torch.equal(sparse, run_layers(mixers(3), Sparsity(), DENSE, x, (condition,))[0])


def test_without_a_seed_torchs_generator_decides():
    evaluation = Evaluation((Branch(0.5),), subsets=None)

    def draw(seed=None):
        if seed is not None:
            torch.manual_seed(seed)
        return evaluation.draw(0, 2, 30, None)[0]

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw())
    assert draw(1).shape == (2, 15)


@pytest.mark.parametrize(("route", "message"), [(Route(3, 1), "reversed"), (Route(1, 5), "leaves the network")])
def test_a_route_that_does_not_fit_stops_the_network(tiny_dit, route, message):
    wrong = DiT(tiny_dit.config, Sparsity((route,)))
    with pytest.raises(ValueError, match=message):
        wrong(torch.randn(1, 4, 8, 8), torch.rand(1), torch.eye(3)[:1], Evaluation((Branch(0.5),)))


class Widen(nn.Module):
    def forward(self, x, condition, packing):
        return torch.cat([x, x + packing.spread(condition)], dim=-1)


@given(
    st.lists(st.tuples(st.sampled_from([0.0, 0.3, 0.5, 1.0]), st.sampled_from([None, "a"])), min_size=1, max_size=3),
    st.integers(1, 2),
    st.integers(0, 99),
)
@settings(max_examples=40)
def test_masking_runs_on_kept_tokens_and_fills_in_the_rest(chunks, batch, seed):
    branches = tuple(Branch(gamma, i, source) for i, (gamma, source) in enumerate(chunks))
    evaluation = Evaluation(branches, subsets(seed))
    x, condition, _ = inputs(batch * (1 + max(evaluation.sources)), seed=seed)
    token = torch.randn(1, 1, 8)
    output, conditions = run_masked((Mixer(1), Widen()), evaluation, x, token, condition)
    assert len(conditions) == len(output) == batch * len(branches)
    for i, (branch, source) in enumerate(zip(branches, evaluation.sources, strict=True)):
        index = evaluation.subsets.draw(i, batch, 12, branch.gamma)
        assert index.shape[1] == keep_count(12, branch.gamma)
        for j in range(batch):
            row, keep = source * batch + j, index[j].tolist()
            expected = token[0].repeat(12, 1)
            if keep:
                own = condition[row : row + 1]
                expected[keep] = Widen()(Mixer(1)(x[row : row + 1, keep], own, WHOLE), own, WHOLE)[0]
            torch.testing.assert_close(output[i * batch + j], expected, rtol=1e-5, atol=1e-6)


def test_masking_at_gamma_0_is_dense_to_the_bit():
    x, condition, _ = inputs(3)
    layers = mixers(2)
    dense = layers[1](layers[0](x, condition, WHOLE), condition, WHOLE)
    masked, _ = run_masked(layers, Evaluation((Branch(0.0),)), x, torch.zeros(1, 1, 4), condition)
    assert torch.equal(masked, dense)


def test_a_masked_network_draws_its_tokens_too():
    """A mask is one subset, without a route."""
    network = MaskDiT(MaskDiTConfig(8, 2, 4, 32, 2, 2, 2.0, 3, 16, 1, 2), Sparsity(mask=0.5))
    drawn = Evaluation((Branch(0.25), Branch(0.75, 1))).prepare(network, torch.randn(4, 4, 8, 8))
    assert [[tuple(index.shape) for index in route] for route in drawn.kept] == [[(2, 12), (2, 4)]]


def test_chunks_of_a_host_are_labelled_by_branch_and_input():
    """A regional prompt has several chunks per branch; a number that is no branch is somebody else's strong one."""
    step = Evaluation((Branch(0.25, 0, "positive"), Branch(0.75, 1, "positive")))
    labelled = step.labelled([1, 0, 1, 0, 2], ["a", "a", "b", "b", "a"])
    assert [(b.gamma, b.index) for b in labelled.branches] == [(0.75, 1), (0.25, 0), (0.75, 1), (0.25, 0), (0.25, 0)]
    assert labelled.sources == (0, 0, 1, 1, 0)
    apart = Evaluation((Branch(0.25, 0, "positive"), Branch(0.75, 1, "null"))).labelled([0, 1], ["a", "a"])
    assert apart.sources == (0, 1)
