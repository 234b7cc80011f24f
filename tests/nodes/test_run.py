"""One guided run: which branches a step asks for, and what a sampler that combines two predictions gets."""

import pytest
import torch
from hostless import hostless

from sparse_model.method.guidance import RULES, Settings
from sparse_model.method.schedule import Curve, Schedule, constant

run_module = hostless("nodes.host.guide.run")
Run = run_module.Run

LEVEL = torch.tensor([0.4])


class Percents:
    """The host's model sampling, as far as a run asks it: sigma falls evenly from 1 to 0."""

    def percent_to_sigma(self, percent):
        return 1 - percent


def combined(pair, run, scale):
    """What a stock sampler makes of a pair at its own scale, and what is added behind it."""
    strong, weak = pair
    guided = strong if weak is None else weak + (strong - weak) * scale
    return guided if run.pull is None else guided + run.pull


@pytest.mark.parametrize("cfg", [1.5, 4.0])
@pytest.mark.parametrize("progress", [0.1, 0.5, 0.9])
def test_a_stock_samplers_scale_is_the_highest_omega(cfg, progress):
    """Whatever its scale is at that step: the schedule decides the share of it."""
    schedule = Schedule(Curve.constant(0.2), Curve.constant(0.8), Curve.linear(1.5, 3.0))
    run = Run(schedule.with_scale(2.0), relative=True)
    now = run.settings(Percents(), torch.tensor([1 - progress]))
    predictions = torch.randn(2, 5)
    expected = RULES["SG"].combine(predictions, schedule.with_scale(cfg).at(progress))
    torch.testing.assert_close(combined(run.pair(predictions, now), run, cfg), expected)


def test_a_flat_omega_leaves_the_weak_prediction_as_it_is():
    run = Run(constant(0.2, 0.8, 1.5).with_scale(2.0), relative=True)
    predictions = list(torch.randn(2, 5))
    strong, weak = run.pair(predictions, run.settings(Percents(), LEVEL))
    assert strong is predictions[0] and weak is predictions[1]


def test_a_sampler_without_a_scale_runs_the_strong_branch_alone():
    run = Run(constant(0.2, 0.8, 1.5))
    now = run.settings(Percents(), LEVEL, scaled=False)
    assert [branch.gamma for branch in run.next_evaluation(now).branches] == [0.2]


@pytest.mark.parametrize("scaled", [True, False])
def test_beside_cfg_the_sampler_sees_the_pair_of_cfg_alone(scaled):
    run, cfg = Run(constant(0.2, 0.8, 3.0, "SG beside CFG")), 5.0 if scaled else 1.0
    now = run.settings(Percents(), LEVEL, scaled)
    branches = run.next_evaluation(now).branches
    assert [branch.condition for branch in branches] == ["positive", "positive", *["null"] * scaled]
    predictions = torch.randn(len(branches), 5)
    expected = RULES["SG beside CFG"].combine(predictions, Settings(0.2, 0.8, 3.0, cfg))
    torch.testing.assert_close(combined(run.pair(predictions, now), run, cfg), expected)


def test_every_evaluation_keeps_tokens_of_its_own_and_others_see_the_strong_branch():
    run = Run(constant(0.5, 0.75, 2.0), seed=3, first=7)
    now = run.settings(Percents(), LEVEL)
    first, second = run.next_evaluation(now), run.next_evaluation(now)
    assert [e.subsets.evaluation for e in (first, second)] == [7, 8] and run.evaluations == 2
    assert run.strong.branches == second.branches[:1] and run.strong.subsets == second.subsets
    kept = [evaluation.draw(0, 1, 32, None)[0].tolist() for evaluation in (first, second)]
    assert kept[0] != kept[1]


def test_a_noise_level_is_read_only_where_the_plan_changes():
    """A meta tensor has no values to read."""
    nothing = torch.empty(2, device="meta")
    assert Run(constant(0.5, 0.75, 2.0)).settings(None, nothing) == Settings(0.5, 0.75, 2.0)
    changing = [
        Schedule(Curve.constant(0.5), Curve.linear(0.6, 0.9), Curve.constant(2.0)),
        Schedule(Curve.constant(0.5), Curve.constant(0.9), Curve.constant(2.0), start=0.1),
    ]
    for schedule in changing:
        with pytest.raises(RuntimeError):
            Run(schedule).settings(Percents(), nothing)
