"""Masks over pictures and videos: which tokens they cover, and that these are never left out."""

import logging

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparse_model.method.branches import Branch, Evaluation
from sparse_model.method.sparsity import Route, Sparsity
from sparse_model.method.token_mask import TokenMask
from sparse_model.method.tokens import Staying, keep_count, subsets
from sparse_model.networks.dit import DiT, DiTConfig

sides = st.integers(1, 40)


@given(sides, sides, sides, sides, st.sampled_from([1, 2, 3, 4]), st.data())
@settings(max_examples=80)
def test_any_covered_pixel_keeps_its_token(height, width, high, wide, side, data):
    """Every token whose part of the picture holds a covered pixel stays, and so does none that is far from all."""
    row, column = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    mask = torch.zeros(1, height, width)
    mask[0, row, column] = 0.3
    stay = TokenMask(mask, (high, wide)).over((high, wide), (side, side))
    grid = -(-high // side), -(-wide // side)
    found = stay.which.reshape(grid)
    for i in range(grid[0]):
        for j in range(grid[1]):
            top, bottom = (edge * height / high for edge in (i * side, min((i + 1) * side, high)))
            left, right = (edge * width / wide for edge in (j * side, min((j + 1) * side, wide)))
            touches = top < row + 1 and bottom > row and left < column + 1 and right > column
            if touches:
                assert found[i, j]
            elif not (top - 1 <= row + 1 and bottom + 1 >= row and left - 1 <= column + 1 and right + 1 >= column):
                assert not found[i, j]
    assert stay.count == int(found.sum()) >= 1


def test_masks_of_a_batch_belong_to_its_samples():
    mask = torch.zeros(2, 8, 8)
    mask[0, 0, 0] = mask[1, 4:] = 1
    stay = TokenMask(mask, (8, 8)).over((8, 8), (2, 2))
    assert stay.which[0].nonzero().flatten().tolist() == [0]
    assert stay.which[1].nonzero().flatten().tolist() == list(range(8, 16))
    assert stay.count == 8
    one_frame = TokenMask(mask, (1, 8, 8)).over((1, 8, 8), (1, 2, 2))
    assert torch.equal(one_frame.which, stay.which)


@pytest.mark.parametrize(("frames", "times", "covered", "expected"), [
    (1, 3, 0, [0, 1, 2]), (3, 3, 1, [1]), (9, 3, 0, [0]), (9, 3, 4, [1]), (9, 3, 5, [2]), (6, 3, 2, [1]),
    (2, 4, 1, [2, 3]),
])  # fmt: skip
def test_frames_of_a_video(frames, times, covered, expected):
    """A video VAE's first latent frame holds the first frame alone, each further one as many as are left."""
    mask = torch.zeros(frames, 4, 4)
    mask[covered, 0, 0] = 1
    stay = TokenMask(mask, (times, 4, 4)).over((times, 4, 4), (1, 2, 2))
    assert stay.which.nonzero()[:, 1].tolist() == [4 * time for time in expected]


def test_other_sizes_are_said_once_and_keep_nothing(caplog):
    mask = TokenMask(torch.ones(1, 4, 4), (8, 8))
    with caplog.at_level(logging.WARNING):
        assert mask.over((4, 8), (2, 2)) is None and mask.over((4, 8), (2, 2)) is None
    (said,) = caplog.messages
    assert "8 x 8" in said and "4 x 8" in said
    with pytest.raises(ValueError, match="picture or a video"):
        TokenMask(torch.ones(1, 4, 4), (99,))


@given(st.integers(0, 2**64 - 1), st.integers(1, 3), st.integers(0, 64), st.floats(0, 1))
@settings(max_examples=60)
def test_tokens_that_stay_are_kept_and_the_others_keep_their_order(seed, batch, count, gamma):
    which = torch.rand(batch, 64, generator=torch.Generator().manual_seed(count)).argsort(dim=1) < count
    plain = subsets(seed, 3)
    before = plain.orders.scores_from(3, 1, batch, 64)[0]
    after = plain.orders.scores_from(3, 1, batch, 64, stay=Staying(which))[0]
    assert torch.equal(after[~which], before[~which]) and (after[which] < 0).all() and (before >= 0).all()
    for selection in ("exact", "bernoulli"):
        kept = type(plain)(plain.orders, 3, selection, stay=Staying(which)).draw(1, batch, 64, gamma)
        assert all(
            set(row.nonzero().flatten().tolist()) <= set(own) for row, own in zip(which, kept.tolist(), strict=True)
        )
        if selection == "exact":
            assert kept.shape == (batch, max(keep_count(64, gamma), count))


def test_in_a_network_of_several_routes():
    """The tokens of a mask and the factors of the routes reach the tokens that a network is given."""
    network = DiT(
        DiTConfig(8, 2, 4, 16, 4, 2, num_classes=3), Sparsity((Route(0, 1, factor=0.5), Route(2, 3, factor=1.2)))
    )
    mask = torch.zeros(1, 8, 8)
    mask[:, :2] = 1  # the first row of 4 x 4 tokens
    evaluation = Evaluation((Branch(0.0), Branch(0.75, 1)), mask=TokenMask(mask, (8, 8)))
    kept = evaluation.prepare(network, torch.zeros(4, 4, 8, 8)).kept
    assert [index.shape for index in kept[0]] == [(2, 16), (2, 10)]
    assert [index.shape for index in kept[1]] == [(2, 16), (2, 4)]  # a rate of 0.9 would keep 2
    assert kept[1][1].tolist() == [[0, 1, 2, 3]] * 2
    with pytest.raises(ValueError, match="over 1"):
        Evaluation((Branch(0.9),)).prepare(network, torch.zeros(1, 4, 8, 8))
