"""The plots of a results file, by what stands in them."""

import pytest

from sparse_model.evaluation.plots import PLOTS
from sparse_model.evaluation.speed import SECONDS, SPEED

pyplot = pytest.importorskip("matplotlib.pyplot")


def test_what_is_far_off_the_curves_stands_at_the_edge_with_its_value():
    distances = {
        "SG, 8 steps": 110.0,
        "SG, 20 steps": 100.0,
        "CFG with EasyCache, 0.05": 90.0,
        "CFG with EasyCache, 0.2": 900.0,
    }
    rows = []
    for number, (method, distance) in enumerate(distances.items()):
        for seed in range(2):
            figures = {"frechet": distance + seed, "frechet_lite2": distance / 2 + seed}
            rows.append({"plan": SPEED, "key": f"{number} {seed}", "method": method, "seed": seed, **figures})
        rows.append({"plan": SECONDS, "key": f"{number} 0", "method": method, "seconds": 0.001 * (number + 1)})
    _, plot = PLOTS["quality-seconds"]
    figure = plot(rows)
    for axes in figure.axes:
        texts = {text.get_text(): text.xy for text in axes.texts}
        worst = next(text for text in texts if text.startswith("0.2"))
        assert worst in ("0.2: 900", "0.2: 450") and set(texts) == {"8", "20", "0.05", worst}
        assert texts[worst][0] == 4.0 and texts["8"][1] < texts[worst][1] < 1.2 * texts["8"][1]
        assert axes.get_ylim()[1] < 1.3 * texts["8"][1]
        curves = [container.lines[0].get_linestyle() for container in axes.containers]
        assert curves == ["-", "None"], "only steps are joined"
    pyplot.close(figure)
