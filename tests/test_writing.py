"""Files that appear whole or not at all."""

import os
import stat
import time

import pytest
import torch
from full_disk import full_disk
from safetensors.torch import save_file

from sparse_model.writing import whole_file


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_takes_the_place_of_the_one_before(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with whole_file(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new" and names(tmp_path) == ["a.txt"]


def test_its_mode_is_that_of_any_new_file(tmp_path):
    before = os.umask(0o027)
    try:
        with whole_file(tmp_path / "a") as temporary:
            temporary.unlink()  # as safetensors does it
            temporary.touch(0o600)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()])
def test_an_error_leaves_what_was_there(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(type(error)), whole_file(path) as temporary:
        temporary.write_text("half")
        raise error
    assert path.read_text() == "old" and names(tmp_path) == ["a.txt"]


def test_a_full_disk_is_one_sentence(tmp_path):
    for write in (
        lambda path: path.write_bytes(bytes(50_000)),
        lambda path: save_file({"x": torch.zeros(50_000)}, path),
    ):
        path = tmp_path / "a.safetensors"
        path.write_text("old")
        said = r"^'.*a.safetensors' could not be written: File too large\.$"
        with full_disk(), pytest.raises(OSError, match=said), whole_file(path) as temporary:
            write(temporary)
        assert path.read_text() == "old" and names(tmp_path) == ["a.safetensors"]


def test_a_folder_that_does_not_exist(tmp_path):
    said = r"'.*b' could not be written: No such file or directory\.$"
    with pytest.raises(OSError, match=said), whole_file(tmp_path / "a" / "b") as temporary:
        temporary.write_text("x")


def test_what_killed_processes_left_is_removed_and_nothing_else(tmp_path):
    path, old = tmp_path / "a [1].png", time.time() - 7200
    left, busy = (tmp_path / f".a [1].png.{digit * 32}" for digit in "1f")
    others = [
        tmp_path / name
        for name in (f".b.png.{'1' * 32}", ".a [1].png", f".a [1].png.{'1' * 31}", f".a 1.png.{'1' * 32}")
    ]
    for file in (left, busy, *others):
        file.write_text("x")
        os.utime(file, (old, old))
    os.utime(busy)  # somebody is writing to it
    with whole_file(path) as temporary:
        temporary.write_text("x")
    assert names(tmp_path) == sorted(file.name for file in (busy, path, *others))
