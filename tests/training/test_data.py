"""Training pictures from a packed file and from folders."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from sparse_model.networks.dit import DiTConfig
from sparse_model.training import data, icons
from sparse_model.training.config import TrainConfig

INFOS = {
    prefix: {"name": prefix, "author": {"name": "somebody"}, "license": {"spdx": "MIT"}} for prefix in ("one", "two")
}
DRAWN = [("one", "red-fox", "Animals"), ("two", "red-fox", "Animals"), ("one", "owl", "Animals"), ("two", "car", "")]


@pytest.fixture
def packed(tmp_path):
    images = np.stack([np.full((4, 4, 3), 60 * i, np.uint8) for i in range(len(DRAWN))])
    drawn = [icons.Icon(prefix, name, category, "") for prefix, name, category in DRAWN]
    icons.save(tmp_path / "data.npz", icons.pack(drawn, images, INFOS, 1))
    return tmp_path / "data.npz"


def labels(pictures: data.Pictures) -> list[list[str]]:
    rows = pictures.weights(torch.arange(len(pictures)))
    return [[pictures.label_names[i] for i in row.nonzero().flatten()] for row in rows]


def test_a_configuration_fits_its_pictures(packed):
    """Its filters choose them, and the network has a class for each of their labels."""
    network = DiTConfig(4, 2, 3, 32, 3, 2, num_classes=1000)
    config, pictures = data.load_fitting(packed, TrainConfig(network, filters={"sets": ["one"]}, held_out=1))
    assert len(pictures) == 2 and config.network.num_classes == len(pictures.label_names) < 1000
    with pytest.raises(ValueError, match="has 2 pictures, of which 2 are held out"):
        data.load_fitting(packed, replace(config, held_out=2))


def test_a_packed_file_gives_pictures_and_all_their_labels(packed):
    pictures = data.load(packed, 4)
    assert [set(own) for own in labels(pictures)] == [
        {"one", "red", "fox"},
        {"two", "red", "fox"},
        {"one", "owl"},
        {"two", "car"},
    ]
    x = pictures.pixels(torch.tensor([2, 0]))
    assert x.shape == (2, 3, 4, 4)
    assert torch.allclose(x[:, 0, 0, 0], torch.tensor([120 / 127.5 - 1, -1.0]))


@pytest.mark.parametrize(
    "filters, expected",
    [
        ({"sets": ["one"]}, [{"one", "red", "fox"}, {"one", "owl"}]),
        ({"categories": ["Animals"]}, [{"one", "red", "fox"}, {"two", "red", "fox"}, {"one", "owl"}]),
        ({"min_sets": 2}, [{"one", "red", "fox"}, {"two", "red", "fox"}]),
        ({"min_count": 2}, [{"one", "red", "fox"}, {"two", "red", "fox"}, {"one"}, {"two"}]),
    ],
)
def test_filters(packed, filters, expected):
    pictures = data.load(packed, 4, **filters)
    assert [set(own) for own in labels(pictures)] == expected
    assert set(pictures.label_names) == set().union(*expected)


def test_pictures_know_whether_they_may_be_mirrored(packed):
    assert data.load(packed, 4).mirrors(torch.tensor([0, 3])).tolist() == [True, True]
    assert data.means_the_same_mirrored("red-fox", "Animals & Nature")
    assert not data.means_the_same_mirrored("keycap-7", "Symbols")
    assert not data.means_the_same_mirrored("red-fox", "Flags")
    assert not data.means_the_same_mirrored("left-arrow", "")
    assert not data.means_the_same_mirrored("Letter-a", "")


def test_a_filter_that_leaves_nothing_is_one_sentence(packed):
    with pytest.raises(ValueError, match="no picture of .* passes the filters"):
        data.load(packed, 4, sets=["three"])


def test_a_folder_of_class_subfolders(tmp_path):
    for name, color, size in (("cat", (255, 0, 0), (9, 6)), ("dog", (0, 0, 255, 0), (5, 5))):
        (tmp_path / name).mkdir()
        Image.new("RGBA" if len(color) == 4 else "RGB", size, color).save(tmp_path / name / "a.png")
        (tmp_path / name / "notes.txt").write_text("not a picture")
    pictures = data.load(tmp_path, 8)
    assert pictures.images.shape == (2, 8, 8, 3)
    assert labels(pictures) == [["cat"], ["dog"]]
    assert pictures.images[0, 0, 0].tolist() == [255, 0, 0]
    assert pictures.images[1, 0, 0].tolist() == [255, 255, 255], "what is transparent is white"
    assert pictures.mirrors(torch.tensor([1, 0])).tolist() == [True, True]


def test_folders_that_are_none(tmp_path):
    with pytest.raises(ValueError, match="has no class subfolders"):
        data.load(tmp_path, 8)
    (tmp_path / "cat").mkdir()
    with pytest.raises(ValueError, match="hold no images"):
        data.load(tmp_path, 8)
    (tmp_path / "cat" / "broken.png").write_bytes(b"not a png")
    with pytest.raises(ValueError, match=r"broken.png' cannot be read as an image"):
        data.load(tmp_path, 8)


def test_a_split_holds_out_the_same_pictures_every_time(packed):
    pictures = data.load(packed, 4)
    train, held = pictures.split(1)
    assert sorted([*train.tolist(), *held.tolist()]) == [0, 1, 2, 3]
    assert len(held) == 1 and torch.equal(held, pictures.split(1)[1])
