import json
from dataclasses import replace

import numpy as np
import pytest

from sparse_model.__main__ import main
from sparse_model.evaluation import plots
from sparse_model.evaluation.evidence import PARTS, Forecast, transfer
from sparse_model.evaluation.features import LITE0, LITE2
from sparse_model.evaluation.measure import QUALITY, Bench
from sparse_model.evaluation.plans import rules
from sparse_model.evaluation.results import Results
from sparse_model.evaluation.speed import SECONDS, SPEED, THRESHOLDS, cell_of
from sparse_model.evaluation.sweep import Share, Sizes, Sweep
from sparse_model.evaluation.verdicts import CLAIMS, FAILS, HOLDS, IN_PART, UNKNOWN, judge, verdicts
from sparse_model.method.schedule import constant
from sparse_model.training.config import CONFIGS


@pytest.fixture
def packed(tmp_path, monkeypatch):
    """A packed .npz of forty pictures, ten of which are held out."""
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)
    monkeypatch.setitem(CONFIGS, "tiny", replace(CONFIGS["icons-32"], filters={}, held_out=10))
    np.savez(
        tmp_path / "tiny.npz",
        images=images,
        labels=np.arange(40) % 2,
        label_offsets=np.arange(41),
        label_names=np.array(["cat", "dog"]),
        names=np.array([f"set:{i}" for i in range(40)]),
        categories=np.array(["any"] * 40),
    )
    return tmp_path / "tiny.npz"


@pytest.fixture
def run(checkpoint, packed, tmp_path, monkeypatch, features):
    monkeypatch.setattr(
        "sparse_model.evaluation.features.pretrained", dict(zip((LITE0, LITE2), features, strict=True)).get
    )
    monkeypatch.setattr("sparse_model.evaluation.speed.STEPS", (2, 3))
    monkeypatch.setattr("sparse_model.evaluation.speed.CFG_STEPS", (1, 3))
    for name, few in {"ROUTED_MAP": ((0.0, 0.25), (0.5, 0.9)), "MAP_OMEGAS": (1.5, 3.0), "NAIVE": (0.0, 0.5)}.items():
        monkeypatch.setattr(f"sparse_model.evaluation.plans.{name}", few)
    checkpoint("tiny-early", seed=1)
    common = ["--checkpoint", checkpoint(), "--reference", packed, "--out", tmp_path / "out", "--samples", 8]
    common += ["--seeds", 2, "--steps", 3, "--trials", 2, "--search-samples", 8]
    return lambda *more: main([str(argument) for argument in ("evidence", *more, *common)])


@pytest.mark.slow
def test_all_evidence_by_one_command(run, tmp_path, capsys, monkeypatch):
    assert run("--forecast") == 0 and "minutes, on held-out labels" in capsys.readouterr().out
    assert run() == 0
    told = capsys.readouterr().out
    assert told.count("| claim | verdict | figures |") == 2
    assert UNKNOWN not in told
    rows = {
        name: [json.loads(line) for line in (tmp_path / "out" / f"{name}.jsonl").read_text().splitlines()]
        for name in ("seen", "held-out")
    }
    for plan in (SPEED, "rules", "caching", "overshoot", "recipes", "nearness", "naive", "moves"):
        methods = [{(row["method"], row["seed"]) for row in found if row["plan"] == plan} for found in rows.values()]
        assert methods[0] == methods[1] and len(methods[0]) >= 2, plan
    for found in rows.values():
        timed = {row["method"]: row["seconds"] for row in found if row["plan"] == SECONDS}
        assert len(timed) == 2 * 2 + 2 + len(THRESHOLDS) and min(timed.values()) > 0
        assert timed["CFG, 3 steps"] > timed["CFG, 1 steps"]
    assert not any(row["plan"] == "calibrate" for row in rows["held-out"])  # settings were chosen on seen labels
    for name in ("seen", "held-out"):
        made = {path.name for path in (tmp_path / "out" / name).iterdir()}
        assert {"rules.png", "quality-seconds.png", "naive.png", "rules.md", "speed.md", "verdicts.md"} <= made
        head, _, *lines = (tmp_path / "out" / name / "speed.md").read_text().splitlines()
        assert head.endswith(" seconds |") and len(lines) == len(timed) and not any("n/a" in line for line in lines)
    measured = []
    monkeypatch.setattr(Bench, "measure", lambda *_: measured.append(1))
    assert run("--forecast", "rules") == 0
    size = (tmp_path / "out" / "seen.jsonl").stat().st_size
    measured.clear()
    assert run() == 0 and not measured and (tmp_path / "out" / "seen.jsonl").stat().st_size == size


def test_a_forecast_measures_nothing_and_counts_what_is_missing(bench, tmp_path):
    found = bench()
    results = Results(tmp_path / "r.jsonl", found.digest)
    sizes = Sizes(search=8, final=8, seeds=2, steps=2, trials=3)
    before = Forecast(found, results, sizes)
    rules(before)
    assert results.rows == [] and before.work["seconds"]["rules"] > 0 and before.work["seconds"]["calibrate"] > 0
    rules(Sweep(found, results, sizes))
    after = Forecast(found, results, sizes)
    rules(after)
    assert sum(after.work["seconds"].values()) < sum(before.work["seconds"].values())


def rows_of_file(path):
    """What was measured, by plan, method and seed, without what the machine decides."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return {
        (row["plan"], row["method"], row["seed"], row["key"]): {
            name: value for name, value in row.items() if name not in ("images_per_second", "date")
        }
        for row in rows
        if row["plan"] != SECONDS
    }


@pytest.mark.slow
def test_shares_and_a_last_call_measure_what_one_call_does(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sparse_model.evaluation.plans.SEARCHED", (("unguided", 1.0), ("CFG", 1.0), ("SG", 1.0)))
    parts = "rules", SPEED, "nearness", "moves", "naive"
    out = tmp_path / "out"
    assert run(*parts) == 0
    whole = {name: rows_of_file(out / f"{name}.jsonl") for name in ("seen", "held-out")}
    out.rename(tmp_path / "whole")
    capsys.readouterr()
    for which in (1, 2):
        assert run(*parts, SECONDS, "--share", f"{which}/2") == 0
        found = rows_of_file(out / "seen.jsonl")
        assert (len(found) < len(whole["seen"])) == (which == 1)
    assert not (out / "seen").exists() and f'"plan": "{SECONDS}"' not in (out / "seen.jsonl").read_text()
    measure, measured = Bench.measure, []
    monkeypatch.setattr(Bench, "measure", lambda bench, cell: measured.append(cell) or measure(bench, cell))
    monkeypatch.setattr("sparse_model.evaluation.reference.extract", lambda *_: pytest.fail("nothing needs features"))
    assert run(*parts) == 0 and not measured and (out / "held-out" / "verdicts.md").is_file()
    for name, expected in whole.items():
        assert rows_of_file(out / f"{name}.jsonl") == expected


def test_a_share_is_one_of_several(run, capsys):
    for text in ("0/2", "3/2", "1", "a/b"):
        with pytest.raises(SystemExit):
            run("--share", text)
        assert f"'{text}' is not a share; write K/N, such as 1/4." in capsys.readouterr().err
    units = list(range(7)), list("abcde")
    dealt = [[list(share.deal(some)) for some in units] for share in (Share(which, 3) for which in (1, 2, 3))]
    assert dealt == [[[0, 3, 6], ["c"]], [[1, 4], ["a", "d"]], [[2, 5], ["b", "e"]]]


def test_unknown_parts_are_refused(run, capsys):
    assert run("everything") == 2
    assert f"there is no part 'everything'; use {', '.join(PARTS)}." in capsys.readouterr().err


def test_held_out_labels_take_the_seconds_of_the_cell_itself(bench, tmp_path):
    """Not those of a schedule that an earlier search chose for the same method."""
    found, sizes = bench(), Sizes(search=8, final=8, seeds=1, steps=2)
    seen, held = (Sweep(found, Results(tmp_path / f"{name}.jsonl", found.digest), sizes) for name in ("a", "b"))
    (row,) = seen.final(SPEED, "SG, 2 steps", constant(0, 0.5, 2))
    for key, value in (("of another", 9.0), (row["key"], 1.0)):
        seen.results.add({"key": key, "plan": SECONDS, "method": "SG, 2 steps", "seconds": value})
    transfer(held, seen.rows)
    assert [row["seconds"] for row in held.rows if row["plan"] == SECONDS] == [1.0]
    held.results.add({**row, "key": "untimed", "method": "SG, 9 steps"})
    assert plots.table(held.results.rows, SPEED).splitlines()[-1].endswith("| n/a |")


def test_a_cell_comes_back_from_its_row(bench):
    from sparse_model.evaluation.caching import EasyCache
    from sparse_model.evaluation.measure import Cell
    from sparse_model.evaluation.variants import Ordered
    from sparse_model.method.schedule import constant

    cell = Cell(constant(0, 0, 2, "CFG"), "CFG", 3, 12, 5, 1.5, EasyCache(0.1))
    assert cell_of(json.loads(json.dumps(cell.describe()))) == cell
    with pytest.raises(ValueError, match="variant Ordered cannot be drawn again"):
        cell_of(replace(cell, variant=Ordered("nested")).describe())


def test_the_rule_of_verdicts():
    assert judge([2.1, 5]) == HOLDS and judge([2.1, 1]) == IN_PART == judge([3, -2])
    assert judge([3, -2.1]) == FAILS == judge([1, 1.9])


def rows_of(plan, method, frechet, **more):
    """Two seeds; the other figures of quality follow the Frechet distance."""
    schedule = {"rule": "SG", **{name: {"keyframes": [[0, 0.5]]} for name in ("gamma_strong", "gamma_weak", "omega")}}
    schedule |= more.pop("schedule", {})
    values = {"recall": 0.5, "distance": 0.3, "cost": 1.0} | more
    return [
        {"plan": plan, "method": method, "key": f"{method}{seed}", "seed": seed, "schedule": schedule, **values}
        | dict.fromkeys(QUALITY, frechet + noise)
        for seed, noise in enumerate((-0.5, 0.5))
    ]


def outcome(rows, start):
    (found,) = (verdict for verdict in verdicts(rows) if verdict.claim.startswith(start))
    return found.outcome


def test_verdicts_follow_the_figures():
    assert {verdict.outcome for verdict in verdicts([])} == {UNKNOWN} and len(verdicts([])) == len(CLAIMS)

    def naive(*distances):
        return [
            row
            for place, distance in enumerate(distances)
            for row in rows_of(
                "naive", f"naive {place}", distance, schedule={"gamma_strong": {"keyframes": [[0, place]]}}
            )
        ]

    assert outcome(naive(10, 20, 30), "Sparsity") == HOLDS
    assert outcome(naive(10, 40, 30), "Sparsity") == IN_PART  # worst in the middle
    assert outcome(naive(10, 10.5, 10.2), "Sparsity") == FAILS

    cfg = rows_of("rules", "CFG (0, 0)", 100, schedule={"rule": "CFG"}, cost=0.9)
    half, whole = (rows_of("rules", f"SG {cost}", at, cost=cost) for cost, at in ((0.5, 99.5), (0.9, 90)))
    assert outcome(cfg + half + whole, "Calibrated SG at no more than half") == FAILS
    assert outcome(cfg + half + whole, "Calibrated SG is better than CFG after") == HOLDS
    assert outcome(cfg + whole, "Calibrated SG at no more than half") == UNKNOWN

    cached = rows_of("caching", "SG with EasyCache, 0.05", 80)
    guessed = rows_of(SPEED, "CFG with EasyCache, 0.05", 85, schedule={"rule": "CFG"})
    assert outcome(cfg + cached, "SG with EasyCache is better than CFG at its best") == HOLDS
    assert outcome(cfg + cached, "SG with EasyCache is better than CFG with EasyCache") == UNKNOWN
    assert outcome(cached + guessed, "SG with EasyCache is better than CFG with EasyCache") == HOLDS

    moved = [
        {**row, "plan": "moves", "frechet": abs(strong - at) + abs(weak - at - 0.3) + 0.001 * row["seed"]}
        for omega, at in ((1.5, 0.1), (3.0, 0.5))
        for strong in (0.1, 0.3, 0.5)
        for weak in (0.4, 0.6, 0.8)
        for row in rows_of("moves", "", 0, schedule={
            "omega": {"keyframes": [[0, omega]]}, "gamma_strong": {"keyframes": [[0, strong]]},
            "gamma_weak": {"keyframes": [[0, weak]]}})
    ]  # fmt: skip
    assert outcome(moved, "The good region") == HOLDS


def test_one_seed_decides_no_claim():
    """It has no spread, by which differences are judged: the figures are shown, and the claim is not measured."""

    def seeds(rows, count):
        return [row for row in rows if row["seed"] < count]

    sparse = rows_of("rules", "SG (0, 0)", 90)
    cfg = rows_of("rules", "CFG (0, 0)", 100, schedule={"rule": "CFG"})
    naive = [
        row
        for place in (0, 1)
        for row in rows_of("naive", str(place), 9 + place, schedule={"gamma_strong": {"keyframes": [[0, place]]}})
    ]
    for claim in ("Calibrated SG is better than CFG after", "At its best SG keeps the recall"):
        assert outcome(sparse + cfg, claim) == HOLDS
        assert outcome(sparse + seeds(cfg, 1), claim) == UNKNOWN == outcome(seeds(sparse + cfg, 1), claim)
    assert outcome(naive, "Sparsity") != UNKNOWN == outcome(seeds(naive, 1), "Sparsity")
    shown = [verdict.figures for verdict in verdicts(seeds(sparse + cfg, 1)) if verdict.claim.startswith("At its best")]
    assert "CFG (0, 0)" in shown[0]


def test_the_recipe_is_compared_at_no_more_multiply_adds_of_a_picture():
    claim = "Calibrated SG is better than SG_FLOPS"
    paper = rows_of("recipes", "SG_FLOPS", 50, gmacs=1.0, steps=20)
    dear = rows_of("rules", "SG dear", 10, gmacs=1.2, steps=20)
    assert outcome(paper + dear, claim) == UNKNOWN
    assert outcome(paper + dear + rows_of("rules", "SG cheap", 60, gmacs=0.9, steps=20), claim) == FAILS
    assert outcome(paper + dear + rows_of(SPEED, "SG, 14 steps", 40, gmacs=1.2, steps=14), claim) == HOLDS
    cfg = rows_of(SPEED, "CFG, 5 steps", 40, gmacs=1.2, steps=5, schedule={"rule": "CFG"})
    assert outcome(paper + cfg, claim) == UNKNOWN


def test_equal_seconds_compares_with_what_is_as_fast():
    def curve(kind, *points):
        return [
            row
            for steps, time, distance in points
            for rows in [rows_of(SPEED, f"{kind}, {steps} steps", distance)]
            for row in [*rows, {"plan": SECONDS, "key": rows[0]["key"], "method": kind, "seconds": time}]
        ]

    own = curve("SG", (8, 0.1, 50), (20, 0.3, 20))
    claim = "At equal seconds SG is better than CFG with fewer"
    assert outcome(own + curve("CFG", (5, 0.1, 60), (10, 0.3, 30)), claim) == HOLDS
    assert outcome(own + curve("CFG", (5, 0.1, 60), (10, 0.25, 30)), claim) == FAILS  # SG's 20 steps take longer
    assert outcome(own + curve("CFG", (2, 0.05, 60)), claim) == UNKNOWN  # nothing of SG is as fast
