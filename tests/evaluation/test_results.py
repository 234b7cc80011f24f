import json
import resource
import subprocess
import sys

import pytest

from sparse_model.evaluation.results import Results

ROW = {"key": "a", "plan": "map", "frechet": 12.5}


def test_rows_are_found_again(tmp_path):
    results = Results(tmp_path / "r.jsonl", "m1")
    results.add(ROW)
    results.add({**ROW, "plan": "search"})
    again = Results(tmp_path / "r.jsonl", "m1")
    assert again.rows == results.rows and len(again.rows) == 2
    assert again.find("a")["frechet"] == 12.5
    assert again.find("a", "search")["plan"] == "search"
    assert again.find("a", "compare") is None and again.find("b") is None


def test_another_process_only_remembers(tmp_path):
    results = Results(tmp_path / "r.jsonl", "m1")
    results.add(ROW, write=False)
    assert results.find("a") and not (tmp_path / "r.jsonl").exists()


def test_an_unfinished_line_is_dropped_and_written_over(tmp_path):
    path = tmp_path / "r.jsonl"
    Results(path, "m1").add(ROW)
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"model": "m1", "key": "b", "fre')
    results = Results(path, "m1")
    assert [row["key"] for row in results.rows] == ["a"]
    results.add({**ROW, "key": "c"})
    assert [json.loads(line)["key"] for line in path.read_text().splitlines()] == ["a", "c"]


def test_bad_files(tmp_path):
    path = tmp_path / "r.jsonl"
    Results(path, "m1").add(ROW)
    with pytest.raises(ValueError, match="holds results of the model m1, not of m2; name another file"):
        Results(path, "m2")
    path.write_text('{"a": 1}\n')
    with pytest.raises(ValueError, match="line 1 is not a result"):
        Results(path, "m1")
    with pytest.raises(ValueError, match="folder '.*nowhere' does not exist"):
        Results(tmp_path / "nowhere" / "r.jsonl", "m1")


FULL = """
import resource, sys
from pathlib import Path
from sparse_model.evaluation.results import Results
results = Results(Path(sys.argv[1]), "m1")
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    results.add({"key": "b", "plan": "map", "text": "x" * 100_000})
except OSError as error:
    print(error)
"""


def test_a_full_disk_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "r.jsonl"
    Results(path, "m1").add(ROW)
    before = path.read_bytes()
    room = len(before) + 5_000  # a part of the line fits
    said = subprocess.run(
        [sys.executable, "-c", FULL, str(path), str(room)], capture_output=True, text=True, check=True
    ).stdout
    assert "r.jsonl' could not be written" in said and "goes on where it stopped" in said
    assert path.read_bytes() == before
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
