import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from sparse_model.checkpoints.checkpoint import CheckpointError, load, read, save
from sparse_model.evaluation.measure import UNGUIDED, Bench, Cell, digest
from sparse_model.evaluation.reference import read_reference
from sparse_model.evaluation.speed import cell_of
from sparse_model.method.guidance import RULES
from sparse_model.method.schedule import constant
from sparse_model.method.sparsity import Sparsity
from sparse_model.training.config import CONFIGS
from sparse_model.training.data import Pictures

ROOT = Path(__file__).parents[2]
SG = Cell(constant(0.25, 0.75, 2), "SG", seed=1, samples=12, steps=3)


def test_a_sample_is_the_same_in_any_batch(bench):
    whole = bench().draw(SG, torch.arange(12))
    parts = torch.cat([bench().draw(SG, torch.arange(*ends)) for ends in ((0, 5), (5, 12))])
    torch.testing.assert_close(whole, parts, rtol=1e-5, atol=1e-5)
    assert (whole[0] - whole[2]).abs().max() > 0.1  # of one class, from noises of their own


def test_seeds_have_noises_of_their_own(bench):
    one, two = (bench().draw(Cell(UNGUIDED, "", seed, 12, 3), torch.arange(12)) for seed in (0, 1))
    assert (one - two).flatten(1).abs().amax(dim=1).min() > 0.01


def test_the_batch_size_does_not_change_the_figures(bench):
    rows = [bench(batch=batch).measure(SG) for batch in (4, 12)]
    for name in ("frechet", "precision", "recall", "density", "coverage", "consistency", "distance", "gmacs"):
        assert rows[0][name] == pytest.approx(rows[1][name], rel=1e-3), name
    assert rows[0]["key"] == rows[1]["key"]


def test_the_batch_size_is_part_of_what_bernoulli_measures(bench):
    """A batch shares the number of its tokens, which its first sample's seed decides."""
    cell = replace(SG, schedule=replace(SG.schedule, selection="bernoulli"))
    small, large = bench(batch=4), bench(batch=12)
    rows = [found.measure(cell) for found in (small, large)]
    assert [row["batch"] for row in rows] == [4, 12]
    assert rows[0]["frechet"] != rows[1]["frechet"] and rows[0]["key"] != rows[1]["key"]
    for selection in ("exact", "structured"):
        other = replace(SG, schedule=replace(SG.schedule, selection=selection))
        assert small.key(other) == large.key(other) and "batch" not in small.measure(other)


def test_rows_that_were_published_are_found_again():
    """Their keys are as they were when they were measured, of rules without a weaker checkpoint."""
    text = (ROOT / "docs" / "results" / "icons-64" / "held-out.jsonl").read_text()
    rows = [row for row in map(json.loads, text.splitlines()) if "reference" in row]
    rows = [row for row in rows if not RULES[row["schedule"]["rule"]].auxiliary]
    for row in rows:
        found = Bench.__new__(Bench)
        found.precision, found.batch, found.reference = row["dtype"], 7, SimpleNamespace(digest=row["reference"])
        assert found.key(cell_of(row)) == row["key"], row["method"]
    assert len(rows) > 90


def test_a_row_says_what_it_cost(bench):
    found = bench()
    unguided, cfg, sparse = (
        found.measure(Cell(schedule, "", 0, 12, 2))
        for schedule in (UNGUIDED, constant(0, 0, 2, "CFG"), constant(0.5, 0.75, 2))
    )
    assert (unguided["cost"], cfg["cost"]) == (0.5, 1.0) and sparse["cost"] < 0.75
    assert cfg["gmacs"] == pytest.approx(2 * unguided["gmacs"])
    assert unguided["distance"] == 0 and cfg["distance"] > 0
    assert all(row["images_per_second"] > 0 for row in (unguided, cfg, sparse))


def test_guidance_with_a_weaker_checkpoint(bench, checkpoint):
    rows = [
        bench(auxiliary=checkpoint(name, seed=seed)).measure(Cell(constant(0, 0, 2, "AG"), "AG", 0, 12, 2))
        for name, seed in (("one", 1), ("two", 2))
    ]
    assert rows[0]["frechet"] != rows[1]["frechet"] and rows[0]["key"] != rows[1]["key"]
    with pytest.raises(ValueError, match="AG needs a weaker second checkpoint; name it by --auxiliary"):
        bench(auxiliary=None).measure(Cell(constant(0, 0, 2, "AG"), "AG", 0, 12, 2))
    other = r"other.safetensors: cannot guide tiny.safetensors as its weaker checkpoint: it has other labels"
    with pytest.raises(CheckpointError, match=other):
        bench(auxiliary=checkpoint("other", labels=("cat", "dog", "cow")))


def test_a_weaker_checkpoint_may_be_of_another_size(bench, checkpoint):
    cell = Cell(constant(0, 0, 2, "AG"), "AG", 0, 12, 2)
    same, narrow = (bench(auxiliary=checkpoint(f"of {width}", seed=1, width=width)).measure(cell) for width in (32, 16))
    assert same["cost"] == 1.0 > narrow["cost"] > 0.5 and same["frechet"] != narrow["frechet"]
    assert bench(auxiliary=checkpoint("of 16", seed=1, width=16)).measure(SG)["cost"] == bench().measure(SG)["cost"]


def test_weights_decide_the_digest_not_the_metadata(checkpoint, tmp_path):
    path = checkpoint()
    spec, state = read(path)
    save(state, spec, tmp_path / "again.safetensors")
    same, other = load(tmp_path / "again.safetensors")[0], load(checkpoint("other", seed=3))[0]
    assert digest(same.state_dict()) == digest(state) != digest(other.state_dict())


def test_bfloat16_is_another_cell_and_nearly_the_same_picture(bench):
    full, half = bench(), bench(precision="bfloat16")
    assert full.key(SG) != half.key(SG)
    index = torch.arange(12)
    apart = (full.draw(SG, index) - half.draw(SG, index)).abs().mean()
    assert 0 < apart < 0.05 * full.draw(SG, index).abs().mean()


def launched(folder, checkpoint, out, processes):
    arguments = [
        "-m", "sparse_model", "evaluate", "--checkpoint", checkpoint, "--reference", folder, "--results", out,
        "--samples", "14", "--seeds", "1", "--steps", "2", "--batch", "4", "--gamma-strong", "0.25", "--rule", "SG",
    ]  # fmt: skip
    # what `accelerate launch` starts where there are GPUs; on a CPU alone it would start mpirun
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    command = [sys.executable, *launcher, *map(str, arguments)]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return [json.loads(line) for line in out.read_text().splitlines()]


@pytest.mark.slow
def test_two_processes_measure_what_one_does(folder, checkpoint, tmp_path):
    path = checkpoint()
    (one,), (two,) = (launched(folder, path, tmp_path / f"{count}.jsonl", count) for count in (1, 2))
    assert two["machine"].startswith("2 x cpu")
    for name in ("machine", "images_per_second"):
        del one[name], two[name]
    assert one == two


def test_a_large_reference_is_a_random_part_of_it(folder, checkpoint, features, monkeypatch):
    spec, _ = read(checkpoint())
    whole = read_reference(folder, spec, "icons-32", features)
    monkeypatch.setattr("sparse_model.evaluation.reference.MOST", 20)
    assert read_reference(folder, spec, "icons-32", features).digest == whole.digest
    monkeypatch.setattr("sparse_model.evaluation.reference.MOST", 12)
    part, again = (read_reference(folder, spec, "icons-32", features) for _ in range(2))
    assert len(part.real.labels) == len(part.second.features) == 12 and part.digest == again.digest != whole.digest
    assert 0 < part.real.labels[:, 0].sum() < 10  # of both classes, though files are read one class after another


def test_the_reference_lends_its_labels(folder, checkpoint, features):
    spec, _ = read(checkpoint())
    reference = read_reference(folder, spec, "icons-32", features)
    asked = reference.conditions(torch.arange(40))
    torch.testing.assert_close(asked[:20], asked[20:])
    assert asked[:20].sum(dim=0).tolist() == [10, 10]


def test_held_out_pictures_are_those_that_training_left_out(tmp_path, checkpoint, features, monkeypatch):
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (30, 8, 8, 3), dtype=np.uint8)
    pictures = Pictures(torch.from_numpy(images), torch.arange(30) % 2, torch.arange(31), ("cat", "dog"))
    monkeypatch.setitem(CONFIGS, "tiny", replace(CONFIGS["icons-32"], filters={}, held_out=10))
    np.savez(
        tmp_path / "tiny.npz",
        images=images,
        labels=pictures.labels.numpy(),
        label_offsets=pictures.offsets.numpy(),
        label_names=np.array(pictures.label_names),
        names=np.array([f"set:{i}" for i in range(30)]),
        categories=np.array(["any"] * 30),
    )
    spec, _ = read(checkpoint())
    seen, unseen = (read_reference(tmp_path / "tiny.npz", spec, "tiny", features, held) for held in (False, True))
    assert (len(seen.real.labels), len(unseen.real.labels)) == (20, 10) and seen.digest != unseen.digest
    assert torch.equal(unseen.real.features, features[0](pictures.pixels(pictures.split(10)[1])))
    with pytest.raises(ValueError, match="is a folder of pictures, none of which was held out"):
        read_reference(tmp_path, spec, "tiny", features, True)


def test_bad_references(folder, checkpoint, features, tmp_path):
    spec, _ = read(checkpoint(labels=("cat", "cow")))
    with pytest.raises(ValueError, match="has 1 labels that the model does not know, such as 'dog'"):
        read_reference(folder, spec, "icons-32", features)
    spec, _ = read(checkpoint())
    (folder / "dog" / "3.png").write_bytes(b"not a picture")
    with pytest.raises(ValueError, match=r"dog/3.png' cannot be read as an image"):
        read_reference(folder, spec, "icons-32", features)
    for file in folder.glob("*/*.png"):
        if file.name not in ("0.png", "1.png"):
            file.unlink()
    with pytest.raises(ValueError, match="the reference has 4 pictures; the metrics need at least 6"):
        read_reference(folder, spec, "icons-32", features)
    (tmp_path / "flat").mkdir()
    with pytest.raises(ValueError, match="has no class subfolders"):
        read_reference(tmp_path / "flat", spec, "icons-32", features)


def test_a_dense_model_is_measured_too(bench, checkpoint):
    row = bench(checkpoint("dense", sparsity=Sparsity()), auxiliary=None).measure(Cell(UNGUIDED, "", 0, 12, 2))
    assert row["cost"] == 0.5
