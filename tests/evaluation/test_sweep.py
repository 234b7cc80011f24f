import json
from dataclasses import replace

import pytest

from sparse_model.__main__ import main
from sparse_model.checkpoints.metadata import schedule_to_dict
from sparse_model.evaluation import plots
from sparse_model.evaluation.features import LITE0, LITE2
from sparse_model.evaluation.measure import UNGUIDED, Bench
from sparse_model.evaluation.plans import SEARCHED, compare, in_words, maps, naive, rules, scales, tokens
from sparse_model.evaluation.results import Results
from sparse_model.evaluation.sweep import SEARCH_SEED, with_spread
from sparse_model.method.guidance import RULES
from sparse_model.method.schedule import Curve, constant
from sparse_model.method.sparsity import Sparsity


@pytest.fixture
def measured(monkeypatch):
    """The cells that are really measured."""
    cells, measure = [], Bench.measure

    def counted(self, cell):
        cells.append(cell)
        return measure(self, cell)

    monkeypatch.setattr(Bench, "measure", counted)
    return cells


def test_a_killed_sweep_goes_on_where_it_stopped(sweep, measured, monkeypatch):
    def killed(self, row, **more):
        if len(self.rows) == 5:
            raise KeyboardInterrupt
        return add(self, row, **more)

    add = Results.add
    monkeypatch.setattr(Results, "add", killed)
    with pytest.raises(KeyboardInterrupt):
        naive(sweep())
    monkeypatch.setattr(Results, "add", add)
    first, again = len(measured), sweep()
    naive(again)
    assert first == 6 and len(measured) == first + 12 - 5
    assert [row["key"] for row in sweep().results.rows] == [row["key"] for row in again.results.rows]
    naive(sweep())
    assert len(measured) == first + 12 - 5


def test_a_cell_of_two_plans_is_measured_once(sweep, measured):
    one = sweep()
    one.final("naive", "naive 0", UNGUIDED)
    one.final("compare", "unguided", UNGUIDED)
    assert len(measured) == 2
    assert [(row["plan"], row["method"]) for row in one.results.rows] == [("naive", "naive 0")] * 2 + [
        ("compare", "unguided")
    ] * 2


def test_a_row_from_before_a_figure_was_added_is_measured_again(sweep, measured, tmp_path):
    naive(sweep())
    path, first = tmp_path / "results.jsonl", len(measured)
    old = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps({k: v for k, v in row.items() if k != "coverage"}) + "\n" for row in old))
    table = plots.table(sweep().results.rows, "naive").splitlines()
    assert len(table) == 2 + 6 and all(line.count("n/a") == 1 for line in table[2:])
    again = sweep()
    naive(again)
    assert len(measured) == 2 * first
    assert [row["coverage"] for row in sweep().results.rows] == [row["coverage"] for row in old]
    assert "n/a" not in plots.table(again.results.rows, "naive")


def test_every_method_gets_as_many_looks_and_none_on_the_final_noise(sweep):
    one = sweep()
    for best_at in (1.25, 2.0, 3.0):
        looked = []

        def search(method, schedule, cfg=1.0, best_at=best_at, looked=looked):
            looked.append(schedule.omega(0))
            return {"frechet": abs(schedule.omega(0) - best_at)}

        one.search = search
        assert one.best_omega("CFG", lambda omega: constant(0, 0, omega, "CFG")) == (best_at, 0)
        assert len(looked) == len(set(looked)) == 6 and min(looked) > 1
    assert one.sizes.seeds <= SEARCH_SEED


def test_the_comparison_from_one_end_to_the_other(sweep, tmp_path):
    one = sweep()
    compare(one)
    naive(one)
    methods = plots.grouped(row for row in one.results.rows if row["plan"] == "compare")
    assert {"unguided", "CFG", "ICG", "AG", "AG + SG, cosine"} < set(methods)
    assert all(any(point in name for name in methods) for point in ("best", "equal cost"))
    for name, rows in methods.items():
        assert [row["seed"] for row in rows] == [0, 1], name
        searched = [row for row in one.results.rows if row["plan"] == "search" and row["method"] == name]
        assert len({plots.constant_of(row, "omega") for row in searched}) == (0 if name == "unguided" else 6)
        best = min(searched, key=lambda row: row["frechet"], default=rows[0])
        assert plots.constant_of(rows[0], "omega") == plots.constant_of(best, "omega")
    made = plots.draw(one.results.rows, tmp_path / "plots")
    assert {path.name for path in made} == {"quality-cost.png", "maps.png", "naive.png"}
    assert all(path.stat().st_size > 5_000 for path in made)
    sheet = plots.picture_grid(one.bench, one.results.rows, columns=3)
    assert sheet.height > len(methods) * 64
    table = plots.table(one.results.rows, "compare").splitlines()
    assert len(table) == 2 + len(methods) and table[2].startswith("| unguided | 1 | ")


def test_equal_cost_is_no_more_than_no_guidance(sweep):
    one = sweep()
    compare(one)
    rows = [row for row in one.results.rows if row["plan"] == "compare" and "equal cost" in row["method"]]
    assert len(rows) == one.sizes.seeds and all(row["cost"] <= 0.5 for row in rows)


def test_a_dense_model_is_compared_without_sparse_guidance(sweep, checkpoint, monkeypatch):
    dense = checkpoint("dense", sparsity=Sparsity())
    one = sweep(path=dense, auxiliary=None)
    compare(one)
    names = {row["method"] for row in one.results.rows if row["plan"] == "compare"}
    assert names == {"unguided", "CFG", "CFG, until 0.8", "ICG"}


def test_what_an_earlier_search_chose_is_left_out(sweep):
    """One method, settings of a longer search: the tables show those alone, and the file keeps both."""
    sweep().final("rules", "SG", constant(0, 0.5, 2))
    again = sweep()
    assert len(again.rows) == again.sizes.seeds  # of plans that were not run here all rows count
    again.at(3).final("rules", "SG", constant(0, 0.5, 3))
    assert {plots.constant_of(row, "omega") for row in again.rows} == {3}
    assert len(again.results.rows) == 2 * again.sizes.seeds


def test_maps_cover_strong_below_weak(sweep):
    one = sweep()
    maps(one)
    points = {tuple(plots.constant_of(row, f"gamma_{name}") for name in ("strong", "weak")) for row in one.results.rows}
    assert all(strong < weak for strong, weak in points) and (0.5, 0.9) in points


def test_a_masked_model_is_mapped_near_dense(sweep, monkeypatch):
    one = sweep()
    monkeypatch.setattr(one.bench, "spec", replace(one.bench.spec, sparsity=Sparsity(mask=0.5)))
    points = []
    monkeypatch.setattr(one, "search", lambda method, schedule, plan: points.append((method, schedule.omega(0))))
    maps(one)
    assert (
        len(points) == 3 * 9 and ("SG (0.125, 0.25)", 1.5) in points and not any(", 1)" in name for name, _ in points)
    )


def test_token_choice_and_third_branch_from_one_end_to_the_other(sweep):
    one = sweep()
    tokens(one)
    rows = plots.grouped(one.results.rows)
    assert {"naive 0.5, exact", "SG (0.5, 0.9), fixed", "SG (0.5, 0.9), smallest norm"} < set(rows)
    assert all(len(group) == one.sizes.seeds for group in rows.values())
    scales(one)
    (group,) = plots.grouped(row for row in one.results.rows if row["plan"] == "scales").values()
    searched = [row for row in one.results.rows if row["plan"] == "search"]
    best = min(searched, key=lambda row: row["frechet"])
    assert len(group) == one.sizes.seeds and len(searched) == 3 * 6
    assert best["method"] == group[0]["method"] and best["cfg"] == group[0]["cfg"]


def test_every_rule_is_searched_alike(sweep):
    one = sweep()
    rules(one)
    final = plots.grouped(row for row in one.results.rows if row["plan"] == "rules")
    for rule in ("unguided", *RULES):
        searched = [row for row in one.results.rows if row["plan"] == "calibrate" and row["method"] == rule]
        searches = sum(name == rule for name, _ in SEARCHED)
        assert one.sizes.trials <= len(searched) <= one.sizes.trials * searches
        assert any(name.startswith(f"{rule} (") for name in final), rule
    assert all(len(group) % one.sizes.seeds == 0 for group in final.values())
    (beside,) = (group for name, group in final.items() if name.startswith("SG beside CFG"))
    assert all(1.1 <= row["cfg"] <= 4 for row in beside)
    assert min(group[0]["cost"] for name, group in final.items() if name.startswith("SG")) <= 0.5
    assert max(row["cost"] for row in one.results.rows) <= 1


def test_the_search_of_rules_heeds_trials_and_what_the_model_can_do(sweep, checkpoint):
    dense = sweep(path=checkpoint("dense", sparsity=Sparsity()), auxiliary=None)
    dense.sizes = replace(dense.sizes, trials=2)
    rules(dense)
    searched = [row["method"] for row in dense.results.rows if row["plan"] == "calibrate"]
    assert sorted(searched) == ["CFG", "CFG", "ICG", "ICG"]


def test_schedules_in_words():
    assert in_words(constant(0.25, 1, 2)) == "(0.25, 1), omega 2"
    schedule = replace(constant(0, 0.95, 2), gamma_strong=Curve.cosine(0, 0.55), start=0.2, end=0.8)
    assert in_words(schedule) == "(0 to 0.55, 0.95), omega 2, from 0.2, until 0.8"
    structured = replace(constant(0, 0.75, 2), selection="structured")
    assert in_words(structured) == "(0, 0.75), omega 2, structured"


def test_plots_without_cells():
    with pytest.raises(ValueError, match="no cells that a plot is made of"):
        plots.draw([], __import__("pathlib").Path("."))


def run(*arguments):
    return main([str(argument) for argument in arguments])


def test_the_commands(checkpoint, folder, tmp_path, monkeypatch, features):
    monkeypatch.setattr(
        "sparse_model.evaluation.features.pretrained", dict(zip((LITE0, LITE2), features, strict=True)).get
    )
    common = ("--checkpoint", checkpoint(), "--reference", folder, "--results", tmp_path / "r.jsonl")
    small = ("--samples", 8, "--seeds", 2, "--steps", 2)
    assert run("evaluate", *common, *small, "--rule", "CFG", "--omega", 2, "--gamma-strong", 0, "--gamma-weak", 0) == 0
    assert [row["schedule"]["rule"] for row in Results(tmp_path / "r.jsonl", _model(tmp_path)).rows] == ["CFG"] * 2
    assert run("sweep", "naive", *common, *small, "--plots", tmp_path / "plots") == 0
    assert (tmp_path / "plots" / "naive.png").is_file()
    assert (tmp_path / "plots" / "naive.md").read_text().count("\n") == 2 + 6


@pytest.mark.slow
def test_a_command_with_the_real_features(checkpoint, folder, tmp_path):
    given = ("--checkpoint", checkpoint(), "--reference", folder, "--results", tmp_path / "r.jsonl")
    assert run("evaluate", *given, "--samples", 6, "--seeds", 1, "--steps", 1) == 0
    assert (tmp_path / "r.jsonl").read_text().count("\n") == 1


def _model(folder):
    return json.loads((folder / "r.jsonl").read_text().splitlines()[0])["model"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("evaluate", "--samples", "5"), "--samples 5 are too few: the metrics need at least 6."),
        (("sweep", "everything"), "there is no plan 'everything'; use compare, maps, naive"),
        (("evaluate", "--reference", "nowhere"), "--reference 'nowhere' does not exist; name a folder"),
        (
            ("evaluate", "--reference", __file__),
            "no training configuration is called 'tiny'; name one by --config: icons-32",
        ),
        (("evaluate", "--held-out"), "is a folder of pictures, none of which was held out"),
    ],
)
def test_bad_commands(checkpoint, folder, tmp_path, capsys, arguments, message):
    command, *rest = arguments
    given = ("--checkpoint", checkpoint(), "--reference", folder, "--results", tmp_path / "r.jsonl")
    assert run(command, *given, *rest) == 2
    assert message in capsys.readouterr().err


def test_rows_of_somebody_else_are_not_drawn():
    """A results file is text, and people edit it."""
    schedule = json.loads(json.dumps(schedule_to_dict(constant(0.25, 0.75, 2.0))))
    good = {"schedule": schedule, "method": "SG", "frechet": 1.0, "cost": 0.5, "seed": 0, "steps": 4}
    assert plots.measured(good)
    wrong = {"schedule": (None, {}, {"omega": 3}, "SG"), "method": (None, 3), "frechet": ("1", None, float("nan"))}
    for name, values in wrong.items():
        for value in values:
            assert not plots.measured({**good, name: value})
        assert not plots.measured({key: value for key, value in good.items() if key != name})


def test_a_single_seed_has_no_spread():
    assert with_spread([1.0, 3.0], 1) == "2.0 \u00b1 1.4"
    assert with_spread([2.0], 1) == "2.0"
