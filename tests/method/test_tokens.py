"""Token subsets: how many, which ones, and taking them out and putting them back."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparse_model.method.grid import Grid
from sparse_model.method.tokens import (
    SELECTIONS,
    Staying,
    Subsets,
    TokenOrders,
    _generator,
    keep_count,
    put,
    random_scores,
    random_subset,
    subsets,
    take,
)

tokens = st.integers(1, 600)
rates = st.floats(0, 1)
seeds = st.integers(0, 2**64 - 1)


@pytest.mark.parametrize(("count", "gamma", "kept"), [
    (256, 0, 256), (256, 0.5, 128), (256, 0.9, 26), (256, 1, 0), (16, 0.3, 12), (15, 0.5, 8), (1, 0.99, 1), (1, 1, 0),
    (1024, 0.25, 768), (1024, 0.999, 2), (4096, 0.8, 820), (83, 0.1, 75), (100, 0.29, 72), (10, 0.7, 3), (3, 0.33, 3),
])  # fmt: skip
def test_as_many_tokens_are_kept_as_tread_keeps(count, gamma, kept):
    """CompVis/tread drops the whole number below count * gamma, as floats give it: of 100 at 0.29 it is 28."""
    assert keep_count(count, gamma) == kept


@given(st.lists(st.one_of(st.sampled_from([0, 1, 2**32 - 1, 2**32, 2**64 - 1, -1]), seeds), min_size=1, max_size=6))
def test_a_stream_is_the_one_of_numpys_seed_sequence(key):
    """Pictures depend on it."""
    state = np.random.SeedSequence([number % 2**64 for number in key]).generate_state(1, np.uint64)
    expected = torch.rand(5, generator=torch.Generator().manual_seed(int(state[0]) >> 1))
    assert torch.equal(torch.rand(5, generator=_generator(*key)), expected)


@given(tokens, rates)
def test_a_rate_never_drops_more_than_its_share(count, gamma):
    dropped = count - keep_count(count, gamma)
    assert dropped <= count * gamma < dropped + 1 + 1e-9


@given(seeds, st.integers(0, 1000), st.integers(0, 3), st.integers(1, 4), st.integers(1, 300), rates)
@settings(max_examples=60)
def test_an_exact_subset_is_k_ascending_tokens_of_each_sample(seed, evaluation, branch, batch, count, gamma):
    index = subsets(seed, evaluation).draw(branch, batch, count, gamma)
    assert index.shape == (batch, keep_count(count, gamma))
    assert index.dtype == torch.int64 and index.device.type == "cpu"
    assert (index.diff(dim=1) > 0).all()
    assert ((index >= 0) & (index < count)).all()


@given(seeds, st.integers(0, 1000), st.integers(0, 3), st.integers(0, 3), st.integers(2, 4), rates)
@settings(max_examples=60)
def test_sample_i_is_a_batch_of_one_with_seed_plus_i(seed, evaluation, branch, route, batch, gamma):
    together = subsets(seed, evaluation).draw(branch, batch, 64, gamma, route)
    alone = [subsets(seed + i, evaluation).draw(branch, 1, 64, gamma, route) for i in range(batch)]
    assert torch.equal(together, torch.cat(alone))


def test_the_subset_depends_on_every_part_of_the_key():
    def draw(seed=1, evaluation=2, branch=0, route=0):
        return tuple(subsets(seed, evaluation).draw(branch, 1, 64, 0.5, route)[0].tolist())

    drawn = [draw(), draw(seed=10), draw(seed=1 + 2**32), draw(evaluation=3), draw(branch=1), draw(route=1)]
    assert len(set(drawn)) == len(drawn)
    assert draw() == draw()


def test_the_tokens_of_a_seed_are_a_file_format():
    """A shared workflow promises its picture to everyone: these numbers never change."""
    assert subsets(42, 4).draw(1, 2, 16, 0.75).tolist() == [[3, 8, 10, 13], [1, 3, 10, 11]]
    assert subsets(42, 4, "bernoulli").draw(1, 2, 16, 0.75).tolist() == [
        [3, 8, 10, 11, 12, 13],
        [1, 3, 6, 8, 10, 11],
    ]
    structured = replace(subsets(42, 4, "structured"), grid=Grid((4, 4)))
    assert structured.draw(1, 2, 16, 0.75).tolist() == [[2, 5, 8, 11], [1, 6, 11, 12]]
    assert structured.draw(1, 2, 16, 0.5).tolist() == [[2, 3, 4, 5, 8, 10, 11, 12], [1, 5, 6, 7, 11, 12, 13, 14]]


def test_drawing_leaves_torchs_own_generator_alone():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    subsets(7).draw(0, 4, 64, 0.5)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("selection", SELECTIONS)
def test_every_token_is_kept_equally_often(selection):
    kept = torch.zeros(32)
    for evaluation in range(100):
        index = replace(subsets(1, evaluation, selection), grid=Grid((4, 8))).draw(0, 10, 32, 0.75)
        kept += torch.zeros(10, 32).scatter(1, index, 1).sum(0)
    assert (kept / 1000 - 0.25).abs().max() < 5 * math.sqrt(0.25 * 0.75 / 1000)


@pytest.mark.parametrize("gamma", [0.2, 0.5, 0.9])
def test_bernoulli_counts_have_the_binomials_mean_and_spread(gamma):
    counts = torch.tensor([
        subsets(5, evaluation, "bernoulli").draw(0, 1, 100, gamma).shape[1] for evaluation in range(600)
    ]).float()  # fmt: skip
    spread = math.sqrt(100 * gamma * (1 - gamma))
    assert abs(counts.mean() - 100 * (1 - gamma)) < 5 * spread / math.sqrt(600)
    assert 0.85 < counts.std() / spread < 1.15


@pytest.mark.parametrize("selection", SELECTIONS)
def test_the_ends_of_the_range(selection):
    assert subsets(3, 4, selection).draw(0, 2, 9, 1.0).shape == (2, 0)
    assert subsets(3, 4, selection).draw(0, 2, 9, 0.0).tolist() == [list(range(9))] * 2


@given(seeds, st.integers(0, 50), rates, rates)
@settings(max_examples=40)
def test_bernoulli_branches_share_their_count(seed, evaluation, gamma, other):
    """Branches of one gamma stay rectangular, and a sparser branch never keeps more."""
    draw = subsets(seed, evaluation, "bernoulli").draw
    first, second = draw(0, 3, 50, gamma), draw(1, 3, 50, gamma)
    assert first.shape == second.shape
    assert (draw(1, 3, 50, other).shape[1] <= first.shape[1]) or other < gamma


def test_an_unknown_selection_is_named():
    with pytest.raises(ValueError, match=r"'random' is unknown; use one of exact, bernoulli"):
        subsets(selection="random")


def test_random_subset_follows_torchs_seed():
    torch.manual_seed(1)
    first = random_subset(3, 50, 20)
    torch.manual_seed(1)
    assert torch.equal(first, random_subset(3, 50, 20))
    assert not torch.equal(first, random_subset(3, 50, 20))
    assert not torch.equal(first[0], first[1])
    assert first.shape == (3, 20) and (first.diff(dim=1) > 0).all()


@given(st.integers(1, 4), st.integers(1, 20), rates, st.lists(st.integers(1, 3), max_size=2))
def test_tokens_are_taken_and_put_back(batch, count, gamma, rest):
    x = torch.arange(batch * count * math.prod(rest)).reshape(batch, count, *rest)
    within = subsets(9).draw(0, batch, count, gamma)
    index = within + torch.arange(batch)[:, None] * count
    kept = take(x, index)
    assert kept.shape == (batch, index.shape[1], *rest)
    for i in range(batch):
        for place, token in enumerate(within[i].tolist()):
            assert torch.equal(kept[i, place], x[i, token])
    assert torch.equal(put(x, index, kept), x)

    before = x.clone()
    changed = put(x, index, -1 - kept)
    assert torch.equal(x, before)
    outside = torch.ones(batch, count, dtype=torch.bool).scatter(1, within, False)
    assert torch.equal(changed[outside], x[outside])
    assert torch.equal(take(changed, index), -1 - kept)


def test_samples_take_different_tokens_of_one_shared_table():
    table, index = torch.randn(1, 5, 2, 3), torch.tensor([[0, 4], [1, 2], [3, 4]])
    assert torch.equal(take(table, index), table[0][index])


def test_gradients_flow_through_both_ways():
    x = torch.randn(1, 4, 2, requires_grad=True)
    index = torch.tensor([[1, 3]])
    put(x, index, 3 * take(x, index)).sum().backward()
    assert x.grad[0, :, 0].tolist() == [1, 3, 1, 3]


@given(seeds, st.integers(0, 10**6), st.integers(0, 5), st.sampled_from(SELECTIONS))
@settings(max_examples=30)
def test_drawing_ahead_keeps_the_same_tokens(seed, first, ahead, selection):
    """Also for samplers that evaluate more often than planned, though none was, or step back."""
    grid = Grid((3, 4))
    run = replace(subsets(seed, first, selection, ahead), grid=grid)
    for evaluation in (*range(first, first + 2 * ahead + 1), first):
        for branch in (0, 1):
            drawn = run.at(evaluation).draw(branch, 2, 12, 0.5)
            alone = replace(subsets(seed, evaluation, selection), grid=grid)
            assert torch.equal(drawn, alone.draw(branch, 2, 12, 0.5))


def test_a_run_draws_once_for_all_its_evaluations():
    run = subsets(4, 0, ahead=10)
    first = run.draw(0, 2, 16, 0.5)
    for evaluation in range(1, 10):
        later = run.at(evaluation).draw(0, 2, 16, 0.5 + evaluation / 1000)
        assert later._base is not None and later._base is first._base  # nothing new was made, nor uploaded
    (drawn,) = run.orders._drawn.values()
    run.at(9).draw(0, 2, 16, 0.75)
    assert [drawn is other for other in run.orders._drawn.values()] == [True]


@pytest.mark.parametrize("stay", [None, Staying(torch.arange(16).unsqueeze(0) < 3)])
def test_a_branch_that_keeps_all_or_none_draws_nothing(stay):
    run = replace(subsets(4), stay=stay)
    assert run.draw(0, 2, 16, 0.0).tolist() == [list(range(16))] * 2
    assert subsets(4).draw(0, 2, 16, 1.0).shape == (2, 0)
    assert not run.orders._drawn


@pytest.mark.parametrize("levels", [3, 20, 2**24])
@pytest.mark.parametrize("gamma", [0.1, 0.5, 0.9])
def test_the_tokens_of_the_lowest_scores_are_kept(levels, gamma):
    """As many as asked for, also where scores are equal: of 4,096 random numbers some are, now and then."""

    def scores(seed, evaluation, branch, route, tokens):
        return (random_scores(seed, evaluation, branch, route, tokens) * levels).floor() / levels

    orders = TokenOrders(5, 2, scores)
    kept, (given, _) = Subsets(orders).draw(0, 3, 100, gamma), orders.scores_from(0, 0, 3, 100)
    lowest = given.sort(dim=1).values[:, : kept.shape[1]]
    assert torch.equal(given.gather(1, kept).sort(dim=1).values, lowest)
    assert (kept.diff(dim=1) > 0).all()


@given(seeds, st.lists(st.sampled_from([0.2, 0.5, 0.8]), min_size=1, max_size=40), st.integers(1, 40))
@settings(max_examples=40)
def test_rates_may_change_in_the_middle_of_a_block(seed, gammas, ahead):
    run = subsets(seed, ahead=ahead)
    for evaluation, gamma in enumerate(gammas):
        alone = subsets(seed, evaluation).draw(0, 2, 12, gamma)
        assert torch.equal(run.at(evaluation).draw(0, 2, 12, gamma), alone)


def test_areas_of_several_sizes_draw_their_own_orders():
    """Regional conditions evaluate pieces of the picture with other numbers of tokens in one run."""
    run = subsets(7, ahead=4)
    for tokens in (64, 16, 64):
        assert torch.equal(run.at(2).draw(0, 1, tokens, 0.5), subsets(7, 2).draw(0, 1, tokens, 0.5))


def test_one_sample_of_a_batch_keeps_its_own_tokens():
    """Where a network takes one row at a time."""
    orders = TokenOrders(3, ahead=2)
    together = orders.lowest(4, 1, 0, 3, 10)
    assert torch.equal(together, torch.cat([orders.of(i).lowest(4, 1, 0, 1, 10) for i in range(3)]))
