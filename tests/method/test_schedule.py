"""Curves over progress, whole schedules, and the paper's presets."""

import itertools
import math
from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sparse_model.method.guidance import RULES
from sparse_model.method.schedule import INTERPOLATIONS, PRESETS, Curve, Schedule, Settings, constant, monotone_slopes

values = st.floats(-5, 5)
progress = st.floats(0, 1)
times = st.lists(st.floats(0, 1).map(lambda t: round(t, 3)), min_size=1, max_size=5, unique=True).map(sorted)
curves = st.builds(
    lambda times, seed, kind: Curve(tuple((t, seed.uniform(-5, 5)) for t in times), kind),
    times, st.randoms(use_true_random=False), st.sampled_from(list(INTERPOLATIONS)),
)  # fmt: skip


@given(values, progress)
def test_constant(value, at):
    assert Curve.constant(value)(at) == value


@given(values, values, progress)
def test_linear(start, end, at):
    curve = Curve.linear(start, end)
    assert curve(at) == pytest.approx((1 - at) * start + at * end, abs=1e-9)


@given(values, values, progress)
def test_half_cosine(start, end, at):
    curve = Curve.cosine(start, end)
    assert curve(at) == pytest.approx(end + (start - end) * (1 + math.cos(math.pi * at)) / 2, abs=1e-9)
    assert curve(0.5) == pytest.approx((start + end) / 2)
    assert curve(at) + curve(1 - at) == pytest.approx(start + end, abs=1e-9)


@given(values, values, st.floats(0.01, 1), progress)
def test_step(start, end, where, at):
    assert Curve.step(start, end, where)(at) == (start if at < where else end)


@given(curves, progress)
def test_curves_pass_their_keyframes_and_stay_between_them(curve, at):
    for time, value in curve.keyframes:
        assert curve(time) == pytest.approx(value)
    assert curve.low - 1e-9 <= curve(at) <= curve.high + 1e-9
    (first, before), (last, after) = curve.keyframes[0], curve.keyframes[-1]
    assert at > first or curve(at) == before
    assert at < last or curve(at) == after


def test_keyframes_between():
    curve = Curve(((0.2, 1.0), (0.4, 3.0), (1.0, 0.0)))
    assert [curve(at) for at in (0, 0.2, 0.3, 0.4, 0.7, 1)] == pytest.approx([1, 1, 2, 3, 1.5, 0])
    assert replace(curve, interpolation="step")(0.39) == 1
    assert replace(curve, interpolation="cosine")(0.25) == pytest.approx(1 + 2 * (1 - math.cos(math.pi / 4)) / 2)


def test_smooth_by_hand():
    """Secants 1 and 0.5, so slopes 1, 0.75 and 0.5; half way a cubic is the mean plus an eighth of the slopes' fall."""
    curve = Curve(((0.0, 0.0), (0.5, 0.5), (1.0, 0.75)), "smooth")
    assert curve(0.25) == pytest.approx(0.25 + 0.5 * (1 - 0.75) / 8)
    assert curve(0.75) == pytest.approx(0.625 + 0.5 * (0.75 - 0.5) / 8)


@given(curves, st.lists(progress, min_size=2))
def test_smooth_curves_turn_only_at_keyframes(curve, moments):
    smooth = replace(curve, interpolation="smooth")
    for (t0, v0), (t1, v1) in itertools.pairwise(smooth.keyframes):
        found = [smooth(moment) for moment in sorted(moments) if t0 <= moment < t1]
        assert all((b - a) * (v1 - v0) >= -1e-9 for a, b in itertools.pairwise(found))


def test_the_slopes_of_a_curve_are_worked_out_once(monkeypatch):
    """Not at every moment that is asked for, which would make a schedule of many keyframes take seconds."""
    made = []
    monkeypatch.setattr(
        "sparse_model.method.schedule.monotone_slopes", lambda points: made.append(points) or monotone_slopes(points)
    )
    weak = Curve(tuple((i / 999, 0.5 + 0.001 * (i % 400)) for i in range(1000)), "smooth")
    Schedule(Curve.constant(0.1), weak, Curve.constant(2))
    assert [weak(i / 50) for i in range(50)] and len(made) == 1


@pytest.mark.parametrize(("text", "curve"), [
    ("0.5", Curve.constant(0.5)),
    ("cosine 0 0.6", Curve.cosine(0, 0.6)),
    ("linear 0.2, 0.8", Curve.linear(0.2, 0.8)),
    ("step 0.5 0.2", Curve.step(0.5, 0.2)),
    ("step 0.5 0.2 0.7", Curve.step(0.5, 0.2, 0.7)),
    ("0:0.5, 0.3:0.2, 1:0", Curve(((0, 0.5), (0.3, 0.2), (1, 0)))),
    ("cosine 0:0.5 1:0", Curve(((0, 0.5), (1, 0)), "cosine")),
    ("0.25:1", Curve(((0.25, 1),))),
    (" 0 : .5 ,1 :\t.2 ", Curve(((0, 0.5), (1, 0.2)))),
    ("smooth 0 : .5, 0.5: .3, 1 : .2", Curve(((0, 0.5), (0.5, 0.3), (1, 0.2)), "smooth")),
    ("cosine 0 : 1", Curve.cosine(0, 1)),
    ("Cosine 0 1", Curve.cosine(0, 1)),
])  # fmt: skip
def test_curves_are_written_as_text(text, curve):
    assert Curve.parse(text) == curve


@pytest.mark.parametrize("text", [
    "", "half", "0.5 0.6", "cosine", "cosine 1", "linear 1 2 3", "cosine 0 0.6 0.5:0.1", "0:1, x", "0:1:2", "nan",
    "inf", "1:0, 0:1",
])  # fmt: skip
def test_other_texts_are_no_curve(text):
    with pytest.raises(ValueError, match=r"curve|keyframe"):
        Curve.parse(text)


@pytest.mark.parametrize(
    "text", ["x" * 100_000, " : " * 30_000, "0:1 " * 900, "1:0 " * 900, "\0\n" * 99, "0:nan " * 900]
)
def test_an_error_quotes_no_long_curve(text):
    with pytest.raises(ValueError) as caught:
        Curve.parse(text)
    assert len(str(caught.value)) < 200 and str(caught.value).isprintable()


@pytest.mark.parametrize(("keyframes", "interpolation", "message"), [
    ((), "linear", "at least one keyframe"),
    (((0.0, math.nan),), "linear", "must be finite numbers, not 0:nan"),
    (((0.0, math.inf),), "linear", "finite"),
    (((-0.1, 1.0),), "linear", "must rise within"),
    (((0.0, 1.0), (1.1, 1.0)), "linear", "must rise within"),
    (((0.5, 1.0), (0.5, 2.0)), "linear", "must rise within"),
    (((0.5, 1.0), (0.2, 2.0)), "linear", "must rise within"),
    (((0.0, 1.0),), "cubic", "interpolation 'cubic' is unknown"),
    (tuple((i / 2000, 1.0) for i in range(1001)), "linear", "has 1001 keyframes; leave some out, 1000 is the most"),
])  # fmt: skip
def test_bad_curves(keyframes, interpolation, message):
    with pytest.raises(ValueError, match=message):
        Curve(keyframes, interpolation)


def test_a_schedule_at_a_moment():
    schedule = Schedule(Curve.linear(0, 0.4), Curve.linear(0.5, 0.9), Curve.linear(1, 3), start=0.25, end=0.75)
    assert schedule.at(0.5) == Settings(pytest.approx(0.2), pytest.approx(0.7), pytest.approx(2))
    assert schedule.at(0.25).omega == 1.5 and schedule.at(0.75).omega == 2.5  # the ends belong to the interval
    for outside in (0.0, 0.24, 0.76, 1.0):
        assert schedule.at(outside).omega == 1
        assert schedule.at(outside).gamma_strong == pytest.approx(schedule.gamma_strong(outside), abs=0.4 / 6 / 2)


def test_a_ramp_of_gamma_takes_seven_values_and_one_of_omega_every_value():
    """So that a compiled network meets seven counts of tokens, and both branches change theirs at the same moments."""
    schedule = Schedule(Curve.cosine(0, 0.6), Curve.cosine(0.6, 0), Curve.linear(1, 2), "AG + SG")
    moments = [schedule.at(i / 100) for i in range(101)]
    assert [*dict.fromkeys(m.gamma_strong for m in moments)] == [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    assert len({(m.gamma_strong, m.gamma_weak) for m in moments}) == 7
    assert len({m.omega for m in moments}) == 101
    for i, moment in enumerate(moments):
        assert moment.gamma_strong == pytest.approx(schedule.gamma_strong(i / 100), abs=0.0501)


def test_keyframes_and_steps_keep_their_own_values():
    schedule = Schedule(Curve.step(0.123, 0.45), Curve.parse("0:0.777, 0.5:0.91"), Curve.constant(2))
    assert [schedule.at(p).gamma_strong for p in (0, 0.49, 0.5, 1)] == [0.123, 0.123, 0.45, 0.45]
    assert [schedule.at(p).gamma_weak for p in (0, 0.5, 1)] == [0.777, 0.91, 0.91]


@pytest.mark.parametrize(("changes", "message"), [
    ({"gamma_strong": Curve.constant(1.0)}, r"gamma_strong 1 is outside \[0, 1\)"),
    ({"gamma_strong": Curve.constant(-0.1)}, r"gamma_strong -0.1 is outside"),
    ({"gamma_strong": Curve.linear(0, 1.5)}, r"gamma_strong 1.5 is outside"),
    ({"gamma_weak": Curve.constant(1.01)}, r"gamma_weak 1.01 is outside \[0, 1\]"),
    ({"gamma_weak": Curve.constant(-0.5)}, r"gamma_weak -0.5 is outside"),
    ({"start": 0.6, "end": 0.5}, "active interval 0.6 to 0.5"),
    ({"start": -0.1}, "active interval"),
    ({"end": 1.1}, "active interval"),
    ({"start": math.nan}, "active interval"),
    ({"selection": "best"}, "selection 'best' is unknown"),
    ({"rule": "sg"}, r"rule 'sg' is unknown; use one of SG, CFG"),
])  # fmt: skip
def test_bad_schedules(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(constant(0.5, 0.9, 1.5), **changes)


def test_a_weak_branch_may_drop_everything():
    assert constant(0.5, 1.0, 1.5).at(0.3).gamma_weak == 1


@given(progress, progress)
def test_in_sg_the_weak_branch_is_sparser(strong, weak):
    assume(strong < 1)
    if strong < weak:
        assert constant(strong, weak, 2).gamma_weak(0) == weak
    else:
        with pytest.raises(ValueError, match="weak branch must be sparser"):
            constant(strong, weak, 2)
        assert constant(strong, weak, 2, "CFG + SG").gamma_weak(0) == weak


def test_in_sg_the_weak_branch_is_sparser_all_the_way():
    crossing = Curve.linear(0.0, 0.8), Curve.linear(0.8, 0.0), Curve.constant(2)
    with pytest.raises(ValueError, match=r"at progress 0\.5"):
        Schedule(*crossing)
    Schedule(*crossing, end=0.41)  # where guidance is off the order does not matter
    Schedule(*crossing, rule="AG + SG")
    with pytest.raises(ValueError, match=r"at progress 0\.7"):
        Schedule(Curve.step(0.1, 0.5, 0.7), Curve.constant(0.5), Curve.constant(2))


def test_in_sg_the_weak_branch_is_sparser_in_what_is_sampled():
    """Not in the curves alone, which differ by as much as half a step of their staircases."""
    strong, weak = Curve.parse("smooth 0.1:0.89, 1:0.47"), Curve.parse("cosine 0:0.9, 0.35:0.9, 0.9:0.54")
    assert all(strong(i / 1000) < weak(i / 1000) for i in range(1001))
    with pytest.raises(ValueError, match=r"gamma_strong 0\.61 is not below gamma_weak 0\.6 at progress 0\.7"):
        Schedule(strong, weak, Curve.constant(2))
    Schedule(strong, weak, Curve.constant(2), end=0.7)


gammas = st.builds(
    lambda times, values, kind: Curve(tuple(zip(times, values[: len(times)], strict=True)), kind),
    times, st.lists(st.integers(0, 19).map(lambda i: i / 20), min_size=5, max_size=5),
    st.sampled_from(list(INTERPOLATIONS)),
)  # fmt: skip


@given(gammas, gammas, times)
@settings(max_examples=500)
def test_no_moment_of_an_accepted_schedule_has_a_denser_weak_branch(strong, weak, ends):
    bounds = {"start": ends[0], "end": ends[-1]}
    free = Schedule(strong, weak, Curve.constant(2), "CFG + SG", **bounds)
    moments = [free.start + (free.end - free.start) * i / 997 for i in range(998)]
    wrong = [moment for moment in moments if free.at(moment).gamma_strong >= free.at(moment).gamma_weak]
    try:
        replace(free, rule="SG")
    except ValueError as error:
        at = float(str(error).partition("at progress ")[2].partition(":")[0])
        near = [free.at(min(max(at + i * 1e-5, 0), 1)) for i in range(-100, 101)]
        assert any(now.gamma_strong >= now.gamma_weak for now in near)
    else:
        assert not wrong


@given(gammas, gammas, times)
@settings(max_examples=200)
def test_rates_are_all_that_is_sampled(strong, weak, ends):
    schedule = Schedule(strong, weak, Curve.constant(2), "CFG + SG", start=ends[0], end=ends[-1])
    moments = [schedule.start + (schedule.end - schedule.start) * i / 997 for i in range(998)]
    assert {(now.gamma_strong, now.gamma_weak) for now in map(schedule.at, moments)} <= schedule.rates()


def test_rates_of_a_moment_count():
    brief = Curve.parse("0:0.5, 0.501:0.5, 0.502:0.75, 0.503:0.5")
    assert Schedule(Curve.constant(0), brief, Curve.constant(2)).rates() >= {(0, 0.5), (0, 0.75)}
    assert Schedule(Curve.constant(0), brief, Curve.constant(2), end=0.4).rates() == {(0, 0.5)}


@given(st.floats(1, 30))
def test_with_scale_sets_the_maximum(omega):
    shaped = replace(constant(0.1, 0.9, 1), omega=Curve(((0.0, 1.0), (0.5, 3.0), (1.0, 2.0))))
    scaled = shaped.with_scale(omega)
    assert scaled.omega.high == pytest.approx(omega)
    assert scaled.omega(0) == 1
    assert scaled.omega(1) - 1 == pytest.approx((omega - 1) / 2)
    assert constant(0.1, 0.9, 4).with_scale(omega) == constant(0.1, 0.9, omega)
    assert replace(scaled, omega=shaped.omega) == shaped


@pytest.mark.parametrize("omega", [math.nan, math.inf])
def test_with_scale_wants_a_scale(omega):
    with pytest.raises(ValueError, match=f"^omega {omega} is no guidance scale; use a number such as 2"):
        constant(0.1, 0.9, 4).with_scale(omega)


def test_with_scale_of_a_curve_without_excess():
    rising = replace(constant(0.1, 0.9, 1), omega=Curve.linear(0.5, 1.0))
    assert rising.with_scale(3).omega == Curve.constant(3)


SKIP_LAYER = "like Skip Layer Guidance"


def test_presets_are_the_papers():
    flops, fid, hps, geneval = (PRESETS[name] for name in ("SG_FLOPS", "SG_FID", "HPSv3", "GenEval"))
    assert list(PRESETS) == ["SG_FLOPS", "SG_FID", "HPSv3", "GenEval", "PDG", "HDM", SKIP_LAYER]
    for at in (0, 0.4, 1):
        assert (flops.at(at).gamma_strong, flops.at(at).gamma_weak) == (0.5, 0.9)
        assert 1.3 <= flops.at(at).omega <= 1.9
        assert hps.at(at) == Settings(0.1, 0.8, 1.8)
        assert geneval.at(at) == Settings(0.2, 0.7, 2.5)
        strong = 0.3 * (1 - math.cos(math.pi * at))
        assert (fid.gamma_strong(at), fid.gamma_weak(at)) == pytest.approx((strong, 0.6 - strong))
        assert PRESETS["PDG"].at(at) == Settings(0.0, 1.0, 3.0)
        assert PRESETS["HDM"].at(at) == Settings(0.0, 0.5, 3.0)
    rules = [schedule.rule for schedule in PRESETS.values()]
    assert rules == ["SG", "AG + SG", "SG", *["CFG + SG"] * 3, "SG beside CFG"]
    skip = PRESETS[SKIP_LAYER]
    assert skip.at(0.1, 5.0) == Settings(0.0, 1.0, 4.0, 5.0)
    assert (skip.at(0.009).omega, skip.at(0.01).omega, skip.at(0.15).omega, skip.at(0.16).omega) == (1, 4, 4, 1)
    assert {schedule.rule for schedule in PRESETS.values()} <= RULES.keys()


def test_sparse():
    assert constant(0, 0.5, 2).sparse and constant(0.5, 0, 2, "CFG + SG").sparse
    assert not constant(0, 0, 2, "CFG").sparse
    assert PRESETS["SG_FID"].sparse


@pytest.mark.parametrize("rule", ["CFG", "ICG", "AG"])
def test_dense_rules_leave_no_token_out_whatever_is_asked(rule):
    schedule = constant(0.5, 0.9, 1.5, rule)
    assert not schedule.sparse and schedule == constant(0, 0, 1.5, rule)
    now = schedule.at(0.3)
    assert (now.gamma_strong, now.gamma_weak, now.omega) == (0, 0, 1.5)


def test_a_new_interpolation_is_read_like_the_others(monkeypatch):
    monkeypatch.setitem(INTERPOLATIONS, "square", lambda u: u * u)
    curve = Curve.parse("square 0.2 0.6")
    assert curve(0.5) == pytest.approx(0.2 + 0.4 * 0.25)
    assert Curve.parse("square 0:0, 1:1")(0.5) == 0.25


def test_sg_beside_cfg_wants_a_sparser_weak_branch_too():
    with pytest.raises(ValueError, match="not below gamma_weak"):
        constant(0.5, 0.5, 2, "SG beside CFG")
