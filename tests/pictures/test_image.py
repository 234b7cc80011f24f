"""Labelled sheets: every picture as it is, in its place, and words where there is none."""

import numpy as np
import pytest
from PIL import Image

from sparse_model.pictures.image import Tile, fitted, labelled_sheet

COLORS = ("red", "green", "blue", "yellow", "cyan")


def corners(sheet: Image.Image, color: str) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of all pixels of one color; it must fill them."""
    pixels = np.asarray(sheet)
    rows, columns = (pixels == Image.new("RGB", (1, 1), color).getpixel((0, 0))).all(axis=2).nonzero()
    box = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
    assert len(rows) == (box[2] - box[0]) * (box[3] - box[1])
    return box


def test_a_sheet_has_its_pictures_in_rows_and_columns():
    tiles = [Tile(Image.new("RGB", (40, 30), color), "cost 1.00, 0.1 s") for color in COLORS]
    sheet = labelled_sheet(tiles[:1], ["omega 2", "omega 3"], {"steps 4": tiles[1:3], "steps 8": [tiles[3], tiles[4]]})
    red, green, blue, yellow, cyan = (corners(sheet, color) for color in COLORS)
    assert all(
        right - left == 40 and bottom - top == 30 for left, top, right, bottom in (red, green, blue, yellow, cyan)
    )
    assert red[0] == green[0] == yellow[0] < blue[0] == cyan[0]
    assert red[3] < green[1] == blue[1] and green[3] < yellow[1] == cyan[1]
    for box in (red, green, blue, yellow, cyan):  # a caption below each
        assert (np.asarray(sheet)[box[3] + 2 : box[3] + 18, box[0] : box[2]] < 128).any()


def test_words_stand_in_the_place_of_a_picture():
    tile = Tile(Image.new("RGB", (200, 90), "red"), "seen")
    sheet = labelled_sheet(
        [tile], ["a", "b"], {"": [tile, Tile(None, "gamma weak 0.3: the weak branch must be sparser")]}
    )
    assert sheet.size[0] > 400
    _, top, right, bottom = corners(sheet.crop((0, sheet.size[1] // 2, *sheet.size)), "red")
    box = sheet.crop((0, sheet.size[1] // 2, *sheet.size)).crop((right + 8, top, right + 208, bottom))
    dark = (np.asarray(box) < 200).all(axis=2)
    assert dark[4:80, 4:190].any() and not dark[4:80, 200:].any()


@pytest.mark.parametrize(("size", "side", "expected"), [
    ((16, 16), 64, (64, 64)), ((32, 24), 100, (96, 72)), ((1024, 512), 256, (256, 128)), ((64, 64), 64, (64, 64)),
])  # fmt: skip
def test_pictures_fit_a_side(size, side, expected):
    picture = Image.effect_noise(size, 50).convert("RGB")
    found = fitted(picture, side)
    assert found.size == expected
    if side >= max(size):
        assert found.resize(size, Image.Resampling.NEAREST).tobytes() == picture.tobytes()
