"""Sparsity Scheduler: each input says whether it counts, and a curve drawn in the host's editor is one of keyframes."""

from typing import Any

import numpy as np
import pytest
from graphs import Graph
from host import Host
from test_plan import CUSTOM, plan

from sparse_model.method.guidance import RULES
from sparse_model.method.schedule import PRESETS

OTHER: dict[str, Any] = {
    **{"start_percent": 0.25, "end_percent": 0.75, "selection": "bernoulli"},
    **{f"gamma_strong_{part}": value for part, value in (("start", 0.375), ("end", 0.125), ("shape", "cosine"))},
    **{f"gamma_weak_{part}": value for part, value in (("start", 0.625), ("end", 0.875), ("shape", "cosine"))},
    **{f"omega_{part}": value for part, value in (("start", 3.0), ("end", 1.5), ("shape", "cosine"))},
    "gamma_strong_keyframes": "0:0.125, 1:0.25",
    "gamma_weak_keyframes": "0:0.5, 1:0.75",
    "omega_keyframes": "0:4, 1:2",
}
"""Another value of every widget, which decides something else where it is used."""
ENDS = {"gamma_strong_end": 0.0625, "gamma_weak_end": 0.9375, "omega_end": 1.25}
SHAPED = {f"{name}_shape": "linear" for name in ("gamma_strong", "gamma_weak", "omega")}
KEYED = {name: value for name, value in OTHER.items() if name.endswith("_keyframes")}
DRAWN = {
    f"{name}_curve": {"points": [[0, low], [1, high]], "interpolation": "linear"}
    for name, low, high in (("gamma_strong", 0.0, 0.25), ("gamma_weak", 0.5, 0.75), ("omega", 1.0, 0.5))
}


def drawn(answer: dict[str, Any]) -> dict[str, Any]:
    """What a plan does, without the names of what is used."""
    assert "error" not in answer, answer["error"]
    return {name: value for name, value in answer.items() if name != "used"}


@pytest.mark.parametrize("preset", [*PRESETS, "custom"])
def test_a_widget_counts_exactly_where_it_says_so(host: Host, preset: str) -> None:
    """Under every preset and, with custom, under every rule: what is not used changes nothing, what is used does."""
    situations = [{}, SHAPED, KEYED, DRAWN] if preset == "custom" else [{}]
    for rule in RULES if preset == "custom" else ["SG"]:
        for situation in situations:
            values = {**CUSTOM, **ENDS, **situation, "rule": rule}
            base = plan(host, preset, values)
            for name, other in OTHER.items():
                changed = drawn(plan(host, preset, {**values, name: other})) != drawn(base)
                same = values[name] == other
                assert changed == (name in base["used"] and not same), (rule, situation, name)


def test_what_counts_is_said_beside_the_widget(host: Host) -> None:
    """For editors without our script, which show every widget."""
    inputs = host.object_info("SparsityScheduler")["input"]
    for name, (_, options) in {**inputs["required"], **inputs["optional"]}.items():
        if name in CUSTOM:
            assert "preset custom" in options["tooltip"], name
    assert "changing it changes nothing" in inputs["required"]["preset"][1]["tooltip"]
    assert "do not use gamma_strong, gamma_weak and selection" in inputs["required"]["rule"][1]["tooltip"]


def test_what_is_rarely_needed_is_folded(host: Host) -> None:
    inputs = host.object_info("SparsityScheduler")["input"]
    folded = [
        name
        for name, (_, *options) in {**inputs["required"], **inputs["optional"]}.items()
        if options and options[0].get("advanced")
    ]
    assert folded == ["selection", "gamma_strong_keyframes", "gamma_weak_keyframes", "omega_keyframes"]


POINTS = {
    "gamma_strong": [[0, 0.0], [0.5, 0.25], [1, 0.125]],
    "gamma_weak": [[0, 0.5], [0.25, 0.75], [1, 1.0]],
    "omega": [[0, 1.0], [0.5, 0.25], [1, 0.5]],
}


@pytest.mark.parametrize(("kind", "name"), [("linear", "linear"), ("monotone_cubic", "smooth")])
def test_a_drawn_curve_is_the_keyframes_of_its_points(host: Host, kind: str, name: str) -> None:
    """Before a run and in it, wherever the host has a curve editor; elsewhere there is no socket for it."""
    heights = {"gamma_strong": 1, "gamma_weak": 1, "omega": 2}  # omega_start is 3: the editor's 0 is 1, its 1 is 3
    written = {
        f"{curve}_keyframes": f"{name} "
        + ", ".join(f"{x}:{y if curve != 'omega' else 1 + y * heights[curve]}" for x, y in points)
        for curve, points in POINTS.items()
    }
    curves = {f"{curve}_curve": {"points": points, "interpolation": kind} for curve, points in POINTS.items()}
    values = {**CUSTOM, "omega_start": 3.0}
    assert drawn(plan(host, "custom", {**values, **curves})) == drawn(plan(host, "custom", {**values, **written}))

    optional = host.object_info("SparsityScheduler")["input"]["optional"]
    if "CurveEditor" not in host.object_info():
        assert not set(curves) & set(optional)
        return
    graph = Graph()
    edited = {curve: graph.add("CurveEditor", curve=value) for curve, value in curves.items()}
    plots = [graph.sparsity(omega_start=3.0, **values) for values in (edited, written)]
    shown = [graph.add("PreviewImage", images=[node[0], 1])[0] for node in plots]
    result = host.run(graph.nodes)
    assert np.array_equal(*(result.pixels(node) for node in shown))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"omega_keyframes": "0:2, 0.5:150"}, "a guidance scale of 150"),
        ({"omega_keyframes": "smooth 0:2, 0.5:-1, 1:2"}, "a guidance scale of -1"),
        ({"omega_start": 101.0}, "a guidance scale of 101"),  # from a link, which the host does not hold to the widget
    ],
)
def test_an_omega_that_no_widget_offers_is_a_sentence(host: Host, values: dict[str, Any], said: str) -> None:
    """As a gamma is."""
    error = plan(host, "custom", {**CUSTOM, **values})["error"]
    assert error == f"omega: {said} is outside [0, 100]; 1 is no guidance."
    assert "error" not in plan(host, "custom", {**CUSTOM, "omega_keyframes": "0:0, 1:100"})


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"points": [[0, 0.5], [1, 1.0]]}, "gamma_strong: gamma_strong 1 is outside"),
        ({"points": [[0, 0.5], [0, 0.25]]}, "gamma_strong: keyframe times must rise"),
        ({"points": [], "interpolation": "linear"}, "gamma_strong: a curve needs at least one keyframe"),
        ({"points": [[0, 0.5]], "interpolation": "spline"}, "a curve of the kind 'spline' cannot be used here"),
        (True, "What comes to gamma_strong_curve is known in a run"),
    ],
)
def test_a_curve_that_cannot_be_used_is_a_sentence(host: Host, value: Any, said: str) -> None:
    error = plan(host, "custom", {**CUSTOM, "gamma_strong_curve": value})["error"]
    assert said.replace("gamma_strong: gamma_strong", "gamma_strong") in error
