"""How the workflows look when they open: boxes apart, groups around nodes, links in front, text large enough."""

import itertools
import json
import math
from collections.abc import Iterator
from pathlib import Path

import pytest

WORKFLOWS = sorted((Path(__file__).parents[1] / "workflows").glob("*.json"))
SCREEN = (1920, 1000)
"""Pixels of the canvas in a full window."""
FILLED = 0.75
"""The part of the canvas that the editor fills when it opens a template."""
READABLE = 0.6
"""The zoom below which the editor draws no text."""
TITLE = 30
SWING = 12
"""How far a spline may swing over the edge of a box beside its way."""

REROUTED = 80
"""How far a spline swings out beside a reroute."""

Box = tuple[float, float, float, float]
Point = tuple[float, float]


def box(node: dict) -> Box:
    """Left, top, right, bottom, with the title."""
    (x, y), (width, height) = node["pos"], node["size"]
    return x, y - TITLE, x + width, y + height


def group_box(group: dict) -> Box:
    x, y, width, height = group["bounding"]
    return x, y, x + width, y + height


def overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def inside(a: Box, b: Box) -> bool:
    return b[0] <= a[0] and b[1] <= a[1] and a[2] <= b[2] and a[3] <= b[3]


def curve(start: Point, end: Point, most: float = math.inf) -> Iterator[Point]:
    """The editor's spline: it leaves to the right and arrives from the left, swinging out `most` pixels."""
    reach = min(math.dist(start, end) / 4, most)
    corners = [start, (start[0] + reach, start[1]), (end[0] - reach, end[1]), end]
    for step in range(1, 40):
        t = step / 40
        weights = [(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t**3]
        x, y = (sum(w * corner[axis] for w, corner in zip(weights, corners, strict=True)) for axis in (0, 1))
        yield x, y


def path_of(link: list, nodes: dict[int, dict], extra: dict) -> Iterator[Point]:
    """The points of a link, through its reroutes: straight between these, a spline at both ends."""
    identity, source, output, target, place, _ = link
    inputs = [i for i, entry in enumerate(nodes[target]["inputs"]) if "widget" not in entry]
    row = inputs.index(place) if place in inputs else place
    left, top, right, _ = box(nodes[source])
    start = (right, top + TITLE + 14 + 20 * output)
    left, top, right, _ = box(nodes[target])
    end = (left, top + TITLE + 14 + 20 * row)
    via = [tuple(each["pos"]) for each in extra.get("reroutes", []) if identity in each["linkIds"]]
    if not via:
        yield from curve(start, end)
        return
    yield from curve(start, via[0], REROUTED)
    for a, b in itertools.pairwise(via):
        yield from ((a[0] + (b[0] - a[0]) * i / 40, a[1] + (b[1] - a[1]) * i / 40) for i in range(41))
    yield from curve(via[-1], end, REROUTED)


@pytest.fixture(params=[path for path in WORKFLOWS if path.stem[:2].isdigit()], ids=lambda path: path.stem)
def workflow(request: pytest.FixtureRequest) -> dict:
    return json.loads(request.param.read_text())


def test_boxes_are_apart(workflow: dict) -> None:
    for a, b in itertools.combinations(workflow["nodes"], 2):
        assert not overlap(box(a), box(b)), (a["type"], b["type"])


def test_groups_hold_whole_nodes_and_are_apart(workflow: dict) -> None:
    assert workflow["groups"]
    for group in workflow["groups"]:
        touched = [node for node in workflow["nodes"] if overlap(box(node), group_box(group))]
        assert touched and all(inside(box(node), group_box(group)) for node in touched), group["title"]
    for a, b in itertools.combinations(workflow["groups"], 2):
        assert not overlap(group_box(a), group_box(b)), (a["title"], b["title"])


def test_no_link_runs_behind_a_node(workflow: dict) -> None:
    nodes = {node["id"]: node for node in workflow["nodes"]}
    for link in workflow["links"]:
        for x, y in path_of(link, nodes, workflow["extra"]):
            for node in nodes.values():
                left, top, right, bottom = box(node)
                deep = min(x - left, right - x, y - top, bottom - y)
                assert deep < SWING, (link, node["type"])


def test_it_opens_readable(workflow: dict) -> None:
    boxes = [*map(box, workflow["nodes"]), *map(group_box, workflow["groups"])]
    lows, highs = [min(each[i] for each in boxes) for i in (0, 1)], [max(each[i] for each in boxes) for i in (2, 3)]
    zoom = min(FILLED * have / (high - low) for have, low, high in zip(SCREEN, lows, highs, strict=True))
    assert zoom >= READABLE
    assert workflow["extra"]["ds"]["scale"] >= READABLE


def test_a_plan_has_room_to_grow(workflow: dict) -> None:
    """It shows twice as many widgets under the preset custom: nothing stands below it that it would cover."""
    folded = [
        node
        for node in workflow["nodes"]
        if node["type"] == "SparsityScheduler" and node["widgets_values"][0] != "custom"
    ]
    for node in folded:
        left, top, right, bottom = box(node)
        grown = left, top, right, bottom + 350
        assert not [other["type"] for other in workflow["nodes"] if other is not node and overlap(grown, box(other))]


def test_a_route_has_room_to_grow(workflow: dict) -> None:
    """It shows three numbers under the route custom, and up to eight lines that it says of itself: `tall` is its height
    then, where the editor draws the tallest widgets."""
    tall = 325
    for node in (each for each in workflow["nodes"] if each["type"] == "TokenRoute"):
        left, top, right, _ = box(node)
        grown = left, top, right, top + TITLE + tall
        assert not [other["type"] for other in workflow["nodes"] if other is not node and overlap(grown, box(other))]
