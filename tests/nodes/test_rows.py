"""Rows of a batch and tokens of a sequence, taken out of what a block is called with and put back."""

from collections import namedtuple
from dataclasses import dataclass

import pytest
import torch
from hostless import hostless

rows = hostless("nodes.host.routes.rows")

INDEX = torch.tensor([[0, 2], [1, 3]])  # two tokens of each of two rows


def numbered(*shape: int) -> torch.Tensor:
    return torch.arange(torch.Size(shape).numel()).view(shape)


def test_picked_are_the_tokens_of_each_row():
    value = numbered(2, 4, 3)
    assert torch.equal(rows.pick(value, INDEX), torch.stack([value[0, [0, 2]], value[1, [1, 3]]]))


@pytest.mark.parametrize(("shape", "dim"), [((2, 5, 4), 2), ((2, 5, 4, 3), 2), ((2, 1, 5, 4), 3)])
def test_tokens_may_stand_along_any_dimension(shape, dim):
    value = numbered(*shape)
    expected = torch.stack([row.index_select(dim - 1, index) for row, index in zip(value, INDEX, strict=True)])
    assert torch.equal(rows.pick(value, INDEX, dim), expected)


def test_one_row_serves_all():
    table = numbered(1, 4, 3)
    assert torch.equal(rows.pick(table, INDEX), torch.stack([table[0, [0, 2]], table[0, [1, 3]]]))


def test_what_is_put_back_replaces_nothing_else():
    value, kept = numbered(2, 4, 3), -torch.ones(2, 2, 3, dtype=torch.long)
    found = rows.put_back(value, INDEX, kept)
    assert torch.equal(rows.pick(found, INDEX), kept)
    assert torch.equal(found[0, [1, 3]], value[0, [1, 3]]) and torch.equal(found[1, [0, 2]], value[1, [0, 2]])
    assert torch.equal(value, numbered(2, 4, 3))  # what was given stays what it was


@pytest.mark.parametrize(("stretches", "length", "expected"), [
    (3, 6, [0, 0, 1, 1, 2, 2]), (1, 3, [0, 0, 0]), (3, 7, [0, 0, 0, 1, 1, 1, 2]),
])  # fmt: skip
def test_a_value_per_frame_becomes_one_per_token(stretches, length, expected):
    value = numbered(1, stretches, 1).expand(2, -1, 2)
    found = rows.stretched(value, length)
    assert found.shape == (2, length, 2) and found[1, :, 0].tolist() == expected


@pytest.mark.parametrize(("shape", "expected"), [
    ((4, 2), [[2, 3], [4, 5]]),  # a row each
    ((1, 2), [[0, 1]]),  # one row for all
    ((3, 1), [[0], [1], [2]]),  # no rows
    ((8, 1), [[i] for i in range(8)]),  # no rows either, whatever divides its length
])  # fmt: skip
def test_rows_of_what_has_them(shape, expected):
    assert rows.rows_of(numbered(*shape), 4, slice(1, 3)).tolist() == expected


@pytest.mark.parametrize(("shape", "expected"), [
    ((4, 1), [[1], [2]]), ((8, 1), [[1], [2], [5], [6]]), ((1, 1), [[0]]), ((6, 1), [[i] for i in range(6)]),
])  # fmt: skip
def test_rows_of_batches_behind_each_other(shape, expected):
    assert rows.stacked_rows_of(numbered(*shape), 4, slice(1, 3)).tolist() == expected


def test_a_batch_is_repeated_as_a_whole():
    assert rows.repeated(numbered(2, 1), 6).flatten().tolist() == [0, 1] * 3
    assert rows.repeated(numbered(1, 2), 6).tolist() == [[0, 1]]


def test_rows_folded_into_the_second_dimension():
    assert rows.folded_rows_of(numbered(1, 8, 1), 4, slice(1, 3)).flatten().tolist() == [2, 3, 4, 5]


def test_tensors_are_found_in_everything_that_carries_them():
    @dataclass
    class Modulation:
        shift: torch.Tensor
        name: str

    Pair = namedtuple("Pair", ["first", "second"])
    one = torch.ones(1)
    given = {"left": one}, [one, None], Pair(one, 2.5), Modulation(one, "gate"), Modulation
    kept, listed, pair, modulation, kind = rows.map_tensors(lambda tensor: tensor + 1, given)
    assert kept == {"left": one}  # a dict is handed on as it is
    assert listed == [2, None] and pair == Pair(2, 2.5) and isinstance(pair, Pair)
    assert modulation == Modulation(torch.tensor([2.0]), "gate") and kind is Modulation


def test_a_sequence_is_flat():
    assert rows.flat(numbered(2, 3, 4, 5, 6)).shape == (2, 60, 6)
    assert torch.equal(rows.flat(numbered(2, 3, 4)), numbered(2, 3, 4))
