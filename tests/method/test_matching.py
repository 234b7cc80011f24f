"""Which omega moves a picture as far as CFG does."""

from dataclasses import replace

import pytest
import torch

from sparse_model.method.branches import Branch, Evaluation
from sparse_model.method.guidance import NULL, POSITIVE
from sparse_model.method.matching import HIGHEST, Look, Looking, Matching
from sparse_model.method.prediction import Flow
from sparse_model.method.sampling import Denoiser, sample
from sparse_model.method.schedule import Curve, constant


def looks(*moments, cfg=1.0, dropped=0.0, pull=1.0):
    """Looks at pictures in which D(null) is `cfg`, D_strong `dropped` and D_weak `pull` away from D, all along one
    axis."""
    dense = torch.zeros(2, 1, 2, 2)
    parts = [dense, dense - cfg, dense + dropped, dense + dropped - pull]
    return [Look.at(progress, sigma, parts) for progress, sigma in moments]


PATH = (0.0, 1.0), (0.5, 0.4)


def test_the_moves_of_a_look_are_those_of_the_predictions():
    generator = torch.Generator().manual_seed(0)
    dense, null, strong, weak = (torch.randn(3, 2, 4, 4, generator=generator) for _ in range(4))
    look = Look.at(0.5, 0.3, (dense, null, strong, weak))

    def size(change):
        return float(change.pow(2).mean(dim=(1, 2, 3)).sqrt().mean())

    assert look.cfg(4.0) == pytest.approx(size(3 * (dense - null)), rel=1e-5)
    for omega in (1.0, 1.7, 5.0):
        guided = weak + omega * (strong - weak)
        assert look.guided(omega) == pytest.approx(size(guided - dense), rel=1e-5)


@pytest.mark.parametrize(("cfg", "pull", "scale", "omega"), [(1, 1, 5, 5), (1, 2, 5, 3), (2, 1, 1.5, 2)])
def test_without_tokens_left_out_in_front_it_is_a_ratio(cfg, pull, scale, omega):
    matching = Matching(constant(0, 0.5, 9), looks(*PATH, cfg=cfg, pull=pull))
    assert matching.matched(scale) == constant(0, 0.5, omega)


def test_a_step_counts_by_the_noise_that_it_takes_away():
    """From sigma 1 to 0.4 a change of D goes into the picture to 60 %, from 0.4 to 0 wholly."""
    (first,), (last,) = looks((0.0, 1.0), pull=1), looks((0.5, 0.4), pull=3)
    found = Matching(constant(0, 0.5, 2), [first, last]).matched(5)
    assert found.omega.high == pytest.approx(1 + 4 * 1.6 / (0.6 * 1 + 1.0 * 3), abs=0.01)


def test_what_the_strong_branch_leaves_out_counts_as_well():
    found = Matching(constant(0.5, 0.9, 2), looks(*PATH, dropped=1, pull=1)).matched(5)
    assert found.omega.high == pytest.approx(4, abs=0.01)  # 1 + (omega - 1) is 4
    with pytest.raises(ValueError, match=r"strong branch alone moves the picture 4 times as far.*lower gamma_strong"):
        Matching(constant(0.5, 0.9, 2), looks(*PATH, dropped=1)).matched(1.25)


def test_a_cfg_that_moves_nothing_is_said():
    for scale, cfg in ((1, 1), (5, 0)):
        with pytest.raises(ValueError, match=f"CFG at {scale} does not move the picture, so there is nothing to match"):
            Matching(constant(0.5, 0.9, 2), looks(*PATH, dropped=1, cfg=cfg)).matched(scale)


def test_an_interval_and_a_curve_keep_their_shape():
    schedule = replace(constant(0, 0.5, 2), start=0.4)
    found = Matching(schedule, looks(*PATH)).matched(5)
    assert (found.start, found.omega.high) == (0.4, pytest.approx(1 + 4 * 1.6, abs=0.01))
    falling = replace(constant(0, 0.5, 2), omega=Curve.linear(3, 1))
    found = Matching(falling, looks(*PATH)).matched(5)
    assert found.omega.low == 1
    assert 0.6 * (found.omega(0) - 1) + found.omega(0.5) - 1 == pytest.approx(4 * 1.6, abs=0.02)


def test_what_no_omega_reaches_is_said():
    with pytest.raises(ValueError, match=rf"No omega up to {HIGHEST:g} .* raise gamma_weak"):
        Matching(constant(0, 0.5, 2), looks(*PATH, pull=0.001)).matched(5)
    for rule in ("CFG", "ICG", "AG", "AG + SG"):
        with pytest.raises(ValueError, match=r"cannot be matched to CFG.*choose SG"):
            Matching(constant(0, 0.5, 2, rule))


@pytest.mark.parametrize("rule", ["SG", "SG beside CFG"])
def test_what_a_look_asks_for(rule):
    asked, places = Matching(constant(0.25, 0.75, 1, rule)).asked(Evaluation(), 0.5)
    dense, null = Branch(0, 0, POSITIVE), Branch(0, 1, NULL)
    assert asked.branches == (dense, null, Branch(0.25, 0, POSITIVE), Branch(0.75, 1, POSITIVE))
    assert places == [0, 1, 2, 3]
    asked, places = Matching(constant(0, 0.75, 1, rule)).asked(Evaluation(), 0.5)
    assert asked.branches == (dense, null, Branch(0.75, 1, POSITIVE)) and places == [0, 1, 0, 2]


def test_looking_changes_nothing_of_the_path():
    class Network(torch.nn.Module):
        def forward(self, x, t, y, evaluation):
            gammas = torch.tensor([branch.gamma for branch in evaluation.branches])
            each = gammas.repeat_interleave(len(x) // len(gammas)).reshape(-1, 1, 1, 1)
            return 0.5 * x + y.sum(dim=1).reshape(-1, 1, 1, 1) - each

    condition, cfg = torch.eye(3)[:2], constant(0, 0, 3, "CFG")
    plain = sample(Denoiser(Network(), Flow("data")), condition, cfg, shape=(1, 4, 4), steps=5)
    matching = Matching(constant(0, 0.5, 2))
    seen = sample(Looking(Network(), Flow("data"), matching, 5), condition, cfg, shape=(1, 4, 4), steps=5)
    assert torch.equal(seen, plain)
    assert [look.progress for look in matching.looks] == [0, 0.2, 0.4, 0.6, 0.8]
    assert matching.matched(3).omega.high == 5  # the label moves D by 1 and the tokens by 0.5
