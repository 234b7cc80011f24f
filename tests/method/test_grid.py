"""The order of tokens that is even over a picture from its beginning."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparse_model.method.branches import Branch, Evaluation
from sparse_model.method.grid import Grid
from sparse_model.method.sparsity import Sparsity
from sparse_model.method.tokens import Staying, keep_count, subsets

sides = st.integers(1, 12)
seeds = st.integers(0, 2**32 - 1)


def orders(shape, seed, rows=3):
    """[rows, *shape]: the place of every token in its order."""
    grid = Grid(shape)
    scores = grid.scores(torch.rand(rows, grid.chances, generator=torch.Generator().manual_seed(seed)))
    return scores.argsort(dim=1).argsort(dim=1).reshape(rows, *shape)


def blocks(places, side):
    """[R, H, W] -> [R, blocks, side * side]."""
    cut = places.unfold(1, side, side).unfold(2, side, side)
    return cut.flatten(1, 2).flatten(2)


@given(seeds, st.integers(1, 6), st.integers(1, 6))
@settings(max_examples=40)
def test_every_quarter_of_the_order_is_one_token_of_every_cell(seed, rows, columns):
    places = orders((2 * rows, 2 * columns), seed)
    quarters = blocks(places, 2).sort(dim=2).values // (rows * columns)
    assert (quarters == torch.arange(4)).all()


@given(seeds, st.integers(1, 3), st.integers(1, 3))
@settings(max_examples=40)
def test_its_first_quarter_is_as_even_in_blocks(seed, rows, columns):
    """The first sixteenth is one token of every 4 x 4, and so on."""
    places = orders((4 * rows, 4 * columns), seed)
    sixteenths = blocks(places, 4).sort(dim=2).values // (rows * columns)
    assert (sixteenths == torch.arange(16)).all()


@given(seeds, sides, sides, st.floats(0, 1))
@settings(max_examples=60)
def test_no_beginning_leaves_a_cell_far_behind(seed, rows, columns, gamma):
    """Of any two whole cells one keeps at most one token more than the other, whatever the count."""
    kept = orders((2 * rows, 2 * columns), seed) < keep_count(4 * rows * columns, gamma)
    counts = blocks(kept, 2).sum(dim=2)
    assert (counts.amax(dim=1) - counts.amin(dim=1)).max() <= 1


@given(seeds, st.lists(sides, min_size=2, max_size=3))
@settings(max_examples=60)
def test_an_order_has_every_token_once(seed, shape):
    places = orders(tuple(shape), seed).flatten(1)
    assert (places.sort(dim=1).values == torch.arange(math.prod(shape))).all()


@pytest.mark.parametrize("shape", [(5, 7), (1, 9), (3, 4), (2, 3, 5)])
def test_tokens_at_odd_edges_are_kept_as_often_as_others(shape):
    """A quarter of all tokens, over 4,000 orders."""
    tokens = math.prod(shape)
    kept = (orders(shape, 0, 4000) < tokens / 4).double().mean(dim=0)
    share = math.ceil(tokens / 4) / tokens
    assert (kept - share).abs().max() < 5 * math.sqrt(share * (1 - share) / 4000)


def test_offsets_of_cells_are_independent():
    """Two cells of a picture, two pictures, two frames: each offset is any of four, whatever the other is."""
    first = blocks(orders((8, 8), 1, 2000), 2).argmin(dim=2)
    pairs = [(first[:, 0], first[:, 1]), (first[:-1, 0], first[1:, 0])]
    frames = orders((2, 4, 4), 2, 2000)
    pairs.append(tuple(blocks(frames[:, frame], 2).argmin(dim=2)[:, 0] for frame in (0, 1)))
    for one, other in pairs:
        counts = torch.zeros(16).scatter_add(0, 4 * one + other, torch.ones(len(one)))
        assert (counts / len(one) - 1 / 16).abs().max() < 5 * math.sqrt(15 / 256 / len(one))


def test_a_part_of_a_grid_keeps_its_own_cells():
    """A video whose first frame is never left out: the rest is as even as without it."""
    grid = Grid.of((3, 8, 8), (1, 2, 2), slice(16, None))
    assert (grid.shape, grid.tokens) == ((3, 4, 4), 32)
    kept = replace(subsets(1, selection="structured"), grid=grid).draw(0, 5, 32, 0.75)
    frames = torch.zeros(5, 32).scatter(1, kept, 1).reshape(10, 4, 4)
    assert (blocks(frames, 2).sum(dim=2) == 1).all()


def test_latents_are_padded_to_whole_patches():
    assert Grid.of((9, 16), (2, 2)).shape == (5, 8)


@given(seeds, st.floats(0, 1), st.integers(0, 30))
@settings(max_examples=40)
def test_tokens_of_a_mask_stay_and_the_others_keep_their_order(seed, gamma, count):
    which = torch.randperm(48, generator=torch.Generator().manual_seed(seed)) < count
    plain = replace(subsets(seed, selection="structured"), grid=Grid((6, 8)))
    masked = replace(plain, stay=Staying(which.unsqueeze(0)))
    kept = masked.draw(0, 2, 48, gamma)
    assert kept.shape[1] == max(keep_count(48, gamma), count)
    order = plain.orders.scores_from(0, 0, 2, 48, grid=plain.grid)[0].argsort(dim=1)
    for row, others in zip(kept.tolist(), order.tolist(), strict=True):
        stay = which.nonzero().flatten().tolist()
        free = [token for token in others if token not in stay]
        assert row == sorted(stay + free[: len(row) - len(stay)])


def test_samples_of_a_batch_differ_and_are_those_of_their_seeds():
    def draw(seed, batch):
        return replace(subsets(seed, 3, "structured"), grid=Grid((8, 8))).draw(1, batch, 64, 0.75)

    together = draw(5, 3)
    assert torch.equal(together, torch.cat([draw(seed, 1) for seed in (5, 6, 7)]))
    assert len({tuple(row) for row in together.tolist()}) == 3


def test_a_sparser_branch_keeps_a_part_of_a_denser_one():
    kept = replace(subsets(5, 3, "structured"), grid=Grid((6, 10)))
    dense, sparse = (set(kept.draw(0, 1, 60, gamma)[0].tolist()) for gamma in (0.4, 0.8))
    assert sparse < dense


def test_tokens_that_lie_on_no_known_grid_are_kept_by_chance():
    exact = subsets(5, 3).draw(0, 2, 30, 0.5)
    for grid in (None, Grid((4, 4))):
        assert torch.equal(replace(subsets(5, 3, "structured"), grid=grid).draw(0, 2, 30, 0.5), exact)


def test_only_the_structured_selection_asks_where_tokens_lie():
    for selection, grid in (("structured", Grid.of((8, 6), (2, 2))), ("exact", None), ("bernoulli", None)):
        placed = Evaluation((Branch(0.5),), subsets(1, selection=selection)).placed(Sparsity(), 1, (8, 6), (2, 2))
        assert placed.subsets.grid == grid
