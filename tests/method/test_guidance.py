"""The guidance rules of arXiv 2601.01608."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparse_model.method.guidance import RULES, Settings, guide

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


NOW = Settings(gamma_strong=0.2, gamma_weak=0.7, omega=3.0, cfg=5.0)
STEPS = {  # (gamma, index, condition, auxiliary) of every branch, and the weight of its prediction
    "SG": ([(0.2, 0, "positive", False), (0.7, 1, "positive", False)], [3, -2]),
    "CFG + SG": ([(0.2, 0, "positive", False), (0.7, 1, "null", False)], [3, -2]),
    "ICG": ([(0.2, 0, "positive", False), (0.7, 1, "random", False)], [3, -2]),
    "AG + SG": ([(0.2, 0, "positive", False), (0.7, 1, "positive", True)], [3, -2]),
    "SG beside CFG": (
        [(0.2, 0, "positive", False), (0.7, 1, "positive", False), (0.0, 2, "null", False)],
        [3 + 5 - 1, -2, -4],
    ),
}


@pytest.mark.parametrize("rule", STEPS)
def test_a_guided_step(rule):
    expected, weights = STEPS[rule]
    branches = RULES[rule].branches(NOW)
    assert [(b.gamma, b.index, b.condition, b.auxiliary) for b in branches] == expected
    predictions = list(torch.eye(len(weights)))
    torch.testing.assert_close(RULES[rule].combine(predictions, NOW), torch.tensor(weights).float())


@pytest.mark.parametrize("rule", RULES)
def test_without_a_scale_only_the_strong_branch_is_needed(rule):
    now = Settings(0.2, 0.7, omega=1.0)
    (branch,) = RULES[rule].branches(now)
    assert (branch.gamma, branch.index, branch.condition) == (0.2, 0, "positive")
    strong = torch.randn(3)
    assert torch.equal(RULES[rule].combine([strong], now), strong)


def test_each_scale_of_sg_beside_cfg_asks_for_its_own_branch():
    rule = RULES["SG beside CFG"]
    assert [b.condition for b in rule.branches(Settings(0, 0.7, 2.0, cfg=1.0))] == ["positive", "positive"]
    assert [b.condition for b in rule.branches(Settings(0, 0.7, 1.0, cfg=4.0))] == ["positive", "null"]
    strong, null = torch.randn(2, 3)
    assert torch.equal(rule.combine([strong, null], Settings(0, 0.7, 1.0, cfg=4.0)), guide(strong, null, 4.0))
