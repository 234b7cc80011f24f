"""Files that are no packed pictures: damaged, of something else, or contradicting themselves."""

import io
import pickle
import zipfile

import numpy as np
import pytest

from sparse_model.training.data import load
from sparse_model.training.icons import Icon, pack, save
from sparse_model.training.packed import read_packed

INFO = {"noto": {"name": "Noto", "author": {"name": "somebody"}, "license": {"spdx": "Apache-2.0"}}}


@pytest.fixture
def packed(tmp_path):
    icons = [Icon("noto", name, "Animals", "") for name in ("red-fox", "owl")]
    save(tmp_path / "data.npz", pack(icons, np.zeros((2, 8, 8, 3), np.uint8), INFO, 1))
    return tmp_path / "data.npz"


def refused(path):
    with pytest.raises(ValueError, match=r"data.npz' is not a packed .npz of pictures, or is damaged") as caught:
        load(path)
    return "\n" not in str(caught.value)


def test_what_was_packed_is_read(packed):
    assert read_packed(packed)["images"].shape == (2, 8, 8, 3)
    assert len(load(packed, 8)) == 2


@pytest.mark.parametrize("data", [
    b"", b"PK", b"\x80\x04.", b"not a zip", pickle.dumps({"images": 1}), b"PK\x05\x06" + bytes(18),
])  # fmt: skip
def test_files_of_something_else(packed, data):
    packed.write_bytes(data)
    assert refused(packed)


def test_a_single_array_is_no_pack(packed):
    with open(packed, "wb") as file:
        np.save(file, np.zeros(3))
    assert refused(packed)


def test_objects_are_not_unpickled(packed, tmp_path):
    arrays = read_packed(packed)
    np.savez(packed, **{**arrays, "names": np.array([open, None], dtype=object)})
    assert refused(packed)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
def test_files_that_were_cut_off(packed, share):
    data = packed.read_bytes()
    packed.write_bytes(data[: int(len(data) * share)])
    assert refused(packed)


def test_flipped_bytes_never_raise_anything_else(packed):
    data = bytearray(packed.read_bytes())
    generator = np.random.default_rng(0)
    for _ in range(200):
        damaged = data.copy()
        for place in generator.integers(len(data), size=3):
            damaged[place] ^= 1 << int(generator.integers(8))
        packed.write_bytes(damaged)
        try:
            read_packed(packed)
        except ValueError as error:
            assert "is not a packed .npz of pictures" in str(error)


@pytest.mark.parametrize("change", [
    {"images": np.zeros((2, 8, 8, 3))}, {"images": np.zeros((2, 8, 4, 3), np.uint8)},
    {"images": np.zeros((0, 8, 8, 3), np.uint8)}, {"images": np.zeros((3, 8, 8, 3), np.uint8)},
    {"names": np.array(["a:b", "no colon"])}, {"label_offsets": np.array([0, 2])},
    {"label_offsets": np.array([0, 9, 4])}, {"label_offsets": np.array([0, 2, 99])},
    {"labels": np.array([0, 1, 2, -1])}, {"labels": np.array([0, 1, 2, 999])}, {"label_names": np.array([1.5, 2.5])},
])  # fmt: skip
def test_arrays_that_contradict_each_other(packed, change):
    np.savez(packed, **{**read_packed(packed), **change})
    assert refused(packed)


def test_a_header_that_promises_terabytes(packed):
    arrays = read_packed(packed)
    buffers = {}
    for name, value in arrays.items():
        buffers[name] = io.BytesIO()
        np.save(buffers[name], value)
    shape, larger = b"'shape': (2, 8, 8, 3), }", b"'shape': (9999999, 99999, 99999, 3), }"
    data = buffers["images"].getvalue().replace(shape.ljust(len(larger)), larger)
    assert larger in data
    with zipfile.ZipFile(packed, "w") as file:
        for name, buffer in buffers.items():
            file.writestr(f"{name}.npy", data if name == "images" else buffer.getvalue())
    assert refused(packed)
