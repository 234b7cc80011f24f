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
    for line in ('{"a": 1}', '{"model": "m1", "key": ["a"], "plan": "map"}', "[" * 100_000, "\x00"):
        path.write_text(line + "\n")
        with pytest.raises(ValueError, match="line 1 is not a result"):
            Results(path, "m1")
    with pytest.raises(ValueError, match="folder '.*nowhere' does not exist"):
        Results(tmp_path / "nowhere" / "r.jsonl", "m1")


def test_two_sweeps_into_one_file_leave_each_row_once(tmp_path):
    path = tmp_path / "r.jsonl"
    one, other = Results(path, "m1"), Results(path, "m1")
    one.add(ROW)
    other.add({**ROW, "frechet": 12.6})  # measured at the same time
    other.add({**ROW, "key": "b"})
    one.add({**ROW, "key": "c"})
    assert [json.loads(line)["key"] for line in path.read_text().splitlines()] == ["a", "b", "c"]
    assert [row["key"] for row in Results(path, "m1").rows] == ["a", "b", "c"]


def test_of_two_lines_of_one_cell_the_last_counts(tmp_path):
    path = tmp_path / "r.jsonl"
    results = Results(path, "m1")
    results.add(ROW)
    results.add({**ROW, "recall": 0.5})
    assert len(path.read_text().splitlines()) == 2
    assert results.rows == Results(path, "m1").rows == [{"model": "m1", **ROW, "recall": 0.5}]


WRITER = """
import sys
from pathlib import Path
from sparse_model.evaluation.results import Results
results = Results(Path(sys.argv[1]), "m1")
print("ready", flush=True)
sys.stdin.readline()
for number in range(60):
    results.add({"key": str(number), "plan": "map", "writer": sys.argv[2], "text": "x" * 20_000})
"""


def test_processes_that_write_at_once_lose_and_mix_nothing(tmp_path):
    path = tmp_path / "r.jsonl"
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(path), name], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for name in "ab"
    ]
    for writer in writers:
        assert writer.stdout.readline() == b"ready\n"
    for writer in writers:
        writer.stdin.write(b"go\n")
        writer.stdin.flush()
    for writer in writers:
        writer.communicate()
        assert writer.returncode == 0
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["key"] for row in rows] == [str(number) for number in range(60)]


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
    assert "r.jsonl' could not be written" in said and "continues from there" in said
    assert path.read_bytes() == before
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
