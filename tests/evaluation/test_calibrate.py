"""The search for the best schedule within a budget, and what of it a checkpoint keeps."""

import json
import sys
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from sparse_model.__main__ import main
from sparse_model.checkpoints.checkpoint import read, save
from sparse_model.checkpoints.metadata import schedule_to_dict
from sparse_model.evaluation.calibrate import Plan, best_plan, calibrate, no_less_than, relative_cost
from sparse_model.evaluation.measure import UNGUIDED
from sparse_model.method.sparsity import Sparsity


def test_calibration_keeps_the_budget_and_writes_the_best(sweep, checkpoint):
    path = checkpoint()
    spec, state = read(path)
    save(state, spec, path, torch.int8)
    stored = load_file(path)
    one = sweep(path=path)
    before, weights = read(path)
    best = calibrate(one, path, [0.5])
    assert all(torch.equal(value, stored[name]) for name, value in load_file(path).items())  # 8 bits stay 8 bits
    rows = [row for row in one.results.rows if row["plan"] == "calibrate"]
    assert len(rows) == 3 and all(row["cost"] <= 0.5 for row in rows)
    assert relative_cost(one, Plan(best)) <= 0.5
    after, kept = read(path)
    assert after.schedule == best and after.steps == one.sizes.steps and before.schedule is None
    (unguided,) = [row for row in one.results.rows if row["plan"] == "search"]
    least = no_less_than(unguided["consistency"], one.sizes.search)
    rows = [row for row in rows if row["consistency"] >= least] or rows
    assert min(rows, key=lambda row: row["frechet"])["schedule"] == json.loads(json.dumps(_plain(best)))
    assert (after.labels, after.title, after.license) == (before.labels, before.title, before.license)
    assert all((kept[name] == weights[name]).all() for name in weights)
    assert sweep(path=path).bench.digest == one.bench.digest  # its results stay its own


def test_calibration_within_several_budgets_names_what_wins(sweep, checkpoint, monkeypatch, capsys):
    path = checkpoint()
    one = sweep(path=path)
    frechet = {"unguided": 9.0, "SG at 0.6 of CFG": 5.0, "SG at 0.8 of CFG": 4.9, "SG at 1 of CFG": 3.0}

    def final(plan, method, schedule, cfg=1.0):
        return [{"frechet": frechet[method] + noise} for noise in (-0.1, 0.1)]

    monkeypatch.setattr(one, "final", final)
    best = calibrate(one, path, [0.8, 0.6, 1])
    spec, _ = read(path)
    assert spec.schedule == best and [setting.name for setting in spec.settings] == ["0.6 of CFG", "1 of CFG"]
    assert spec.setting("1 of CFG").steps == one.sizes.steps
    assert relative_cost(one, Plan(spec.setting("0.6 of CFG").schedule)) <= 0.6
    with pytest.raises(ValueError, match="has no settings 'fast'; it offers '0.6 of CFG', '1 of CFG'"):
        spec.setting("fast")
    capsys.readouterr()
    assert main(["inspect", str(path)]) == 0
    assert "  settings:\n    0.6 of CFG (2 steps)\n    1 of CFG (2 steps)\n" in capsys.readouterr().out
    calibrate(one, path, [0.8])
    assert len(read(path)[0].settings) == 2  # one budget leaves the others alone


def test_one_seed_names_no_winner(sweep, checkpoint):
    path = checkpoint()
    one = sweep(path=path)
    one.sizes = replace(one.sizes, seeds=1)
    with pytest.raises(ValueError, match="told by the spread over seeds; raise --seeds to 2 or more"):
        calibrate(one, path, [0.6, 1])
    assert one.results.rows == [] and read(path)[0].settings == ()
    calibrate(one, path, [1])


def _plain(schedule):
    return schedule_to_dict(schedule)


def test_as_little_as_chance_may_show():
    """The bound is twice the standard error of a difference of two means of values that are 0 or 1."""
    values = (torch.rand(4000, 2, 500, generator=torch.Generator().manual_seed(0)) < 0.3).double().mean(2)
    assert no_less_than(0.3, 500) == pytest.approx(0.3 - 2 * (values[:, 0] - values[:, 1]).std().item(), abs=0.002)


@pytest.mark.parametrize("samples, chosen", [(1000, 1), (10, -1)])
def test_calibration_passes_over_what_shows_less_of_what_was_asked(sweep, monkeypatch, samples, chosen):
    """Than chance may, that is: of ten pictures nothing can be said, and the last, nearest one is taken."""
    one, looked = sweep(), []
    one.sizes = replace(one.sizes, search=samples)

    def search(method, schedule, plan="search", cfg=1.0):
        looked.append(schedule)
        if schedule == UNGUIDED:
            return {"consistency": 0.5}
        return {"frechet": 100.0 - len(looked), "consistency": 0.6 if len(looked) == 2 else 0.4}

    monkeypatch.setattr(one, "search", search)
    assert best_plan(one, "SG", 1) == (looked[chosen], 1)


def test_a_small_budget_gets_as_many_trials(sweep, monkeypatch):
    """The better a schedule of this search looks the more it costs, so that what is suggested soon costs too much."""
    one, looked = sweep(), []
    one.sizes = replace(one.sizes, trials=12)
    monkeypatch.setattr("sparse_model.evaluation.calibrate.REFUSED", 30)

    def search(method, schedule, plan="search", cfg=1.0):
        looked.append(relative_cost(one, Plan(schedule, cfg)))
        return {"consistency": 0.5, "frechet": -looked[-1]}

    monkeypatch.setattr(one, "search", search)
    best = best_plan(one, "CFG + SG", 0.5)
    assert len(looked) == 1 + 12 and max(looked[1:]) <= 0.5  # the first one is no guidance
    assert relative_cost(one, best) == max(looked[1:])


def test_what_a_wider_search_tried_counts_within_a_small_budget(sweep, monkeypatch):
    one = sweep()
    one.sizes = replace(one.sizes, trials=8)
    looked = []

    def search(method, schedule, plan="search", cfg=1.0):
        looked.append(schedule)
        return {"consistency": 0.5, "frechet": 100 - schedule.omega(0)}

    monkeypatch.setattr(one, "search", search)
    small = best_plan(one, "CFG + SG", 0.5)
    own = set(looked)
    both = best_plan(one, "CFG + SG", 0.5, 1.0)
    assert relative_cost(one, both) <= 0.5 and both.schedule.omega(0) > small.schedule.omega(0)
    assert both.schedule not in own, "found by the wider search"
    assert any(relative_cost(one, Plan(schedule)) > 0.5 for schedule in looked)


def test_calibration_that_cannot_be_done(sweep, checkpoint):
    with pytest.raises(ValueError, match=r"no schedule costs at most 0.1 of CFG with this route; raise --budget"):
        calibrate(sweep(), checkpoint(), [0.1])
    dense = checkpoint("dense", sparsity=Sparsity())
    with pytest.raises(ValueError, match="no token route in its metadata, so there is nothing to calibrate"):
        calibrate(sweep(path=dense, auxiliary=None), dense, [0.5])


def test_a_missing_search_package_is_named(sweep, checkpoint, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ValueError, match=r"optuna: pip install -r requirements-evaluate.txt"):
        calibrate(sweep(), checkpoint(), [0.5])
