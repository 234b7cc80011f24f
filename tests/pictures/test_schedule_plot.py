"""The plot of a schedule: whatever the curves are, each of them is seen."""

import numpy as np
import pytest

from sparse_model.method.schedule import PRESETS, constant
from sparse_model.pictures.schedule_plot import BOTTOM, COLORS, LEFT, RIGHT, TOP, schedule_plot

SCHEDULES = {
    **PRESETS,
    "both at 0": constant(0.0, 0.0, 2.0, "CFG"),
    "no guidance": constant(0.25, 0.75, 1.0),
    "a rate that equals omega's place": constant(0.5, 0.9, 1.5),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_no_curve_hides_another(name: str) -> None:
    """Each colour in at least 80 % of the columns between the axes, dots and lines counted, the legend not."""
    picture = np.asarray(schedule_plot(SCHEDULES[name]), dtype=int)[TOP : BOTTOM + 2, LEFT + 3 : RIGHT - 3]
    for curve, color in COLORS.items():
        wanted = np.array([int(color[place : place + 2], 16) for place in (1, 3, 5)])
        columns = (np.abs(picture - wanted).max(axis=-1) < 40).any(axis=0)
        assert columns.mean() > 0.8, curve
