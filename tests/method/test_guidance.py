"""The guidance rules of arXiv 2601.01608."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparse_model.method.guidance import RULES, guide

numbers = st.floats(-100, 100)


@given(numbers, numbers, st.floats(0, 20))
def test_guide_is_equation_7(strong, weak, omega):
    guided = guide(torch.tensor(strong), torch.tensor(weak), omega)
    assert guided.item() == pytest.approx(omega * strong + (1 - omega) * weak, rel=1e-4, abs=1e-2)


def test_the_ends_of_the_scale():
    strong, weak = torch.randn(2, 3, 4, 4)
    assert torch.equal(guide(strong, weak, 0), weak)
    torch.testing.assert_close(guide(strong, weak, 1), strong)
    assert torch.equal(guide(strong, strong, 7.5), strong)  # branches that agree are left alone


@given(st.floats(1.1, 10))
def test_guidance_moves_away_from_the_weak_branch(omega):
    assert guide(torch.tensor(1.0), torch.tensor(0.0), omega) > 1


def test_the_rules_are_the_papers():
    """What the weak branch is: its condition, and whether a second checkpoint evaluates it."""
    assert {name: (rule.condition, rule.auxiliary) for name, rule in RULES.items()} == {
        "SG": ("same", False),
        "CFG": ("null", False),
        "CFG + SG": ("null", False),
        "ICG": ("random", False),
        "AG": ("same", True),
        "AG + SG": ("same", True),
    }
