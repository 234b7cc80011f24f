"""Changed pictures: still the same drawing on white, moved, mirrored, smaller or in other colours."""

import math

import pytest
import torch

from sparse_model.training.augment import Augmentation, augment, recolour, shift, shrink

EVERYTHING = Augmentation(mirror=0.5, scale=0.2, shift=0.2, hue=0.3, saturation=0.3)


def page(*ink, side=16, color=(-1.0, 0.2, 0.6)):
    """White pictures [B, 3, side, side] with a filled rectangle each: (top, bottom, left, right)."""
    x = torch.ones(len(ink), 3, side, side)
    for picture, (top, bottom, left, right) in zip(x, ink, strict=True):
        picture[:, top:bottom, left:right] = torch.tensor(color).view(3, 1, 1)
    return x


def run(x, settings, seed=0, mirrors=True):
    return augment(x, torch.full((len(x),), mirrors), settings, torch.Generator().manual_seed(seed))


def test_nothing_set_changes_nothing():
    x = page((2, 9, 3, 12))
    assert torch.equal(run(x, Augmentation()), x)


def test_only_pictures_that_mean_the_same_are_mirrored():
    x = page(*[(2, 9, 1, 5)] * 200)
    assert torch.equal(run(x, Augmentation(mirror=1.0)), x.flip(3))
    assert torch.equal(run(x, Augmentation(mirror=1.0), mirrors=False), x)
    mirrored = (run(x, Augmentation(mirror=0.5)) != x).flatten(1).any(dim=1)
    assert 70 < mirrored.sum() < 130
    assert torch.equal(run(x, Augmentation(mirror=0.5))[~mirrored], x[~mirrored])


def test_shifts_move_the_drawing_whole_and_no_further_than_they_may():
    x = page(*[(1, 9, 5, 14)] * 300)
    moved = run(x, Augmentation(shift=0.2))  # 3 pixels of 16
    places = set()
    for picture in moved:
        rows, columns = (picture[0] < 0).any(dim=1).nonzero(), (picture[0] < 0).any(dim=0).nonzero()
        top, left = int(rows.min()), int(columns.min())
        assert torch.equal(picture, page((top, top + 8, left, left + 9))[0]), "cut off or torn"
        places.add((top - 1, left - 5))
    assert {down for down, _ in places} == {-1, 0, 1, 2, 3}, "one row of margin above, three to go below"
    assert {right for _, right in places} == {-3, -2, -1, 0, 1, 2}


@pytest.mark.parametrize("ink", [(0, 16, 0, 16), (0, 0, 0, 0)])
def test_a_picture_that_fills_the_page_or_an_empty_one_stays_where_it_is(ink):
    x = page(ink)
    assert torch.equal(shift(x, torch.ones(2, 1), 0.5), x)


def test_shrinking_keeps_the_middle_and_the_paper_white():
    x = page((0, 16, 0, 16), (4, 12, 4, 12))
    small = shrink(x, torch.tensor([0.5, 1.0]))
    assert torch.allclose(small[1], x[1], atol=1e-5)
    drawn = small[0, 0] < 0
    assert drawn[4:12, 4:12].all() and drawn.sum() == 64
    assert torch.equal(small[0, :, :3], torch.ones(3, 3, 16))
    assert small.abs().max() <= 1


def test_half_of_the_pictures_keep_their_size():
    x = page(*[(0, 16, 0, 16)] * 200)
    same = (run(x, Augmentation(scale=0.4)) == x).flatten(1).all(dim=1)
    assert 70 < same.sum() < 130


def test_greys_keep_their_colour_and_colours_turn():
    grey = torch.linspace(-1, 1, 8).expand(2, 3, 8).unsqueeze(2)
    assert torch.allclose(recolour(grey, torch.tensor([0.5, -2.0]), torch.tensor([1.5, 0.2])), grey, atol=1e-6)
    red, third = torch.tensor([0.5, -0.5, -0.5]).view(1, 3, 1, 1), torch.tensor([2 * math.pi / 3])
    assert torch.allclose(recolour(red, third, torch.ones(1)).flatten(), torch.tensor([-0.5, 0.5, -0.5]), atol=1e-6)
    assert torch.allclose(recolour(red, 0 * third, torch.zeros(1)).flatten(), torch.full((3,), -1 / 6), atol=1e-6)


def test_the_same_generator_gives_the_same_pictures_and_another_others():
    x = page(*[(3, 9, 4, 12)] * 20)
    assert torch.equal(run(x, EVERYTHING), run(x, EVERYTHING))
    assert not torch.equal(run(x, EVERYTHING), run(x, EVERYTHING, seed=1))
    assert torch.equal(x, page(*[(3, 9, 4, 12)] * 20)), "the training pictures themselves are left alone"


def test_pictures_of_one_channel_have_no_hue():
    x = page((3, 9, 4, 12))[:, :1]
    assert torch.equal(run(x, Augmentation(hue=1.0, saturation=0.5)), x)


def test_colours_upload_nothing_once_they_were_turned(monkeypatch):
    given = torch.rand(2, 3, 4, 4), torch.tensor([0.5, -2.0]), torch.tensor([1.5, 0.2])
    before = recolour(*given)

    def upload(*_, **__):
        raise AssertionError("this waits for a GPU")

    monkeypatch.setattr(torch, "tensor", upload)
    assert torch.equal(recolour(*given), before)
