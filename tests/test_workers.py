"""The tests' division among processes."""

import pytest
from workers import unit_of


@pytest.mark.parametrize(
    ("test", "unit"),
    [
        ("tests/host/test_nodes.py::test_three_ways_to_guide_agree[0.33.0]", "0.33.0"),
        ("tests/host/test_sheet.py::test_one_sentence[0.3.64-values0-2 4; 6]", "0.3.64"),
        ("tests/host/test_smoke.py::test_start[none]", "tests/host/test_smoke.py"),  # without a host it is skipped
        ("tests/host/test_workflows.py::test_every_workflow", "tests/host/test_workflows.py"),
        ("tests/benchmarks/test_compiled.py::test_a_run[dit]", "tests/benchmarks/test_compiled.py::test_a_run[dit]"),
        ("tests/method/test_grid.py::test_sides[0.5-2]", "tests/method/test_grid.py"),
    ],
)
def test_what_stays_in_one_process(test, unit):
    assert unit_of(test) == unit
