"""What people look at: pixels out of networks, contact sheets, schedules and costs."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from sparse_model.cost import Cost
from sparse_model.method.schedule import Curve, constant
from sparse_model.pictures.cost_plot import SHARED, cost_plot
from sparse_model.pictures.image import contact_sheet, to_image
from sparse_model.pictures.schedule_plot import BOTTOM, COLORS, GAMMAS, LEFT, RIGHT, SHADE, TOP, schedule_plot


def test_minus_one_is_black_and_one_is_white_and_more_is_clipped():
    x = torch.tensor([-9.0, -1.0, 0.0, 1.0, 9.0]).expand(3, 1, -1)
    assert np.asarray(to_image(x))[0, :, 0].tolist() == [0, 0, 128, 255, 255]


def test_a_contact_sheet_has_a_titled_row_each_and_columns_in_order():
    black, white = -torch.ones(3, 2, 2), torch.ones(3, 2, 2)
    sheet = np.asarray(contact_sheet({"a": torch.stack([black, white]), "b": torch.stack([white, black])}, scale=10))
    assert sheet.shape == (2 * (18 + 20 + 6), 6 + 2 * 26, 3)
    tiles = [
        [sheet[18 + row * 44 : 38 + row * 44, 6 + column * 26 : 26 + column * 26] for column in (0, 1)]
        for row in (0, 1)
    ]
    assert [[int(tile.min()) == int(tile.max()) == 0 for tile in row] for row in tiles] == [
        [True, False],
        [False, True],
    ]
    assert (sheet[:18] < 128).any()  # the title


def test_headers_take_a_line_for_each_part():
    rows = {"a": torch.zeros(1, 3, 2, 2)}
    plain, headed = contact_sheet(rows), contact_sheet(rows, columns=["emojione, cat, face"])
    assert headed.height - plain.height == 3 * 18


def test_a_title_wider_than_its_pictures_is_shown_whole():
    title = "CFG + SG omega 3.8, gamma 0.15 / 0.75: 648 MMAC per step"
    narrow, wide = (np.asarray(contact_sheet({title: torch.ones(count, 3, 8, 8)})) for count in (1, 20))
    edge = np.argwhere(wide[:18] < 128)[:, 1].max()  # where the title ends
    assert edge < narrow.shape[1] < wide.shape[1]
    assert (narrow[:18, : edge + 1] == wide[:18, : edge + 1]).all()


def colour(code: str) -> list[int]:
    return [int(code[i : i + 2], 16) for i in (1, 3, 5)]


def where(image, code: str, tolerance: int = 24) -> np.ndarray:
    return np.argwhere((np.abs(np.asarray(image).astype(int) - colour(code)) < tolerance).all(axis=2))


@pytest.mark.parametrize("gamma", [0.25, 0.5, 0.75])
def test_a_constant_rate_is_a_line_at_its_height(gamma):
    plot = schedule_plot(constant(gamma, 1, 1))
    assert plot.size == (640, 360)
    line = where(plot, COLORS["gamma strong"])
    line = line[(line[:, 1] > LEFT) & (line[:, 1] < RIGHT) & (line[:, 0] > TOP)]
    top, bottom = GAMMAS
    assert abs(np.median(line[:, 0]) - (bottom - (bottom - top) * gamma)) < 2
    assert np.ptp(line[:, 1]) > 0.95 * (RIGHT - LEFT)


def test_only_the_active_interval_is_shaded():
    schedule = replace(constant(0.5, 0.9, 1.5), start=0.25, end=0.5, omega=Curve.constant(2))
    counts = np.bincount(where(schedule_plot(schedule), SHADE, 4)[:, 1])
    columns = np.flatnonzero(counts > (BOTTOM - TOP) / 2)
    low, high = (columns.min() - LEFT) / (RIGHT - LEFT), (columns.max() - LEFT) / (RIGHT - LEFT)
    assert low == pytest.approx(0.25, abs=0.01) and high == pytest.approx(0.5, abs=0.01)


def test_bars_are_as_high_as_what_they_count():
    plot = cost_plot([Cost(unguided=150.0, cfg=300.0, strong=120.0, weak=80.0, shared=60.0)] * 4)
    assert plot.size == (640, 360)
    middle = LEFT + (RIGHT - LEFT) // 8  # of the first of four bars
    bar = {
        name: np.count_nonzero(where(plot, code)[:, 1] == middle)
        for name, code in (("shared", SHARED), ("strong", COLORS["gamma strong"]), ("weak", COLORS["gamma weak"]))
    }
    unit = (BOTTOM - TOP) / (300 * 1.12)
    for name, value in {"shared": 60, "strong": 60, "weak": 20}.items():
        assert bar[name] == pytest.approx(value * unit, abs=4), name
