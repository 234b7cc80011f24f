"""The nearest training pictures of samples, and the sheet that shows them."""

import numpy as np
import torch
from PIL import Image

from sparse_model.checkpoints.checkpoint import build, save
from sparse_model.checkpoints.spec import ModelSpec
from sparse_model.method.prediction import Flow
from sparse_model.method.sparsity import Route, Sparsity
from sparse_model.networks.dit import DiTConfig
from sparse_model.training import icons
from sparse_model.training.config import CONFIGS, TrainConfig
from sparse_model.training.data import Pictures
from sparse_model.training.nearest import main, nearest

CONFIG = DiTConfig(8, 2, 3, 32, 2, 2, 2.0, num_classes=2)


def test_a_copy_is_found_mirrored_too_but_not_among_pictures_left_out():
    images = torch.randint(0, 256, (30, 8, 8, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    pictures = Pictures(images, torch.arange(30) % 2, torch.arange(31), ("a", "b"))
    x = pictures.pixels(torch.arange(30))
    samples = torch.stack([x[4], x[9].flip(2), x[29] + 0.1])
    found, distances = nearest(samples, pictures, torch.arange(29), chunk=7)
    assert torch.allclose(distances[:2], torch.zeros(2), atol=1e-3)
    assert torch.equal(found[:2], samples[:2])
    assert distances[2] > 0.3, "the picture itself was left out"
    found, distances = nearest(samples, pictures, torch.arange(30))
    assert torch.allclose(distances[2], torch.tensor(0.1), atol=1e-3)
    assert torch.equal(found[2], x[29])


def test_the_sheet_has_a_row_per_label_and_the_nearest_beside(tmp_path, monkeypatch):
    drawn = [icons.Icon("one", name, "Animals", "") for name in ("fox", "owl", "fox-2", "owl-2")]
    images = np.stack([np.full((8, 8, 3), 60 * i, np.uint8) for i in range(4)])
    info = {"one": {"name": "one", "author": {"name": "somebody"}, "license": {"spdx": "MIT"}}}
    icons.save(tmp_path / "data.npz", icons.pack(drawn, images, info, 1))
    spec = ModelSpec(
        "dit", CONFIG, Flow("data"), Sparsity((Route(0, -1, 0.5),)), ("fox", "owl"), latent="pixels", steps=2
    )
    network = build(spec)
    for parameter in network.parameters():
        parameter.data.zero_()
    save(network.state_dict(), spec, tmp_path / "model.safetensors")
    monkeypatch.setitem(CONFIGS, "small", TrainConfig(CONFIG, held_out=0))
    files = [str(tmp_path / "model.safetensors"), str(tmp_path / "data.npz"), "--out", str(tmp_path / "sheet.png")]
    main([*files, "--config", "small", "--labels", "fox", "owl", "--each", "2"])
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    # a network of zeros draws mid grey, 127.5; the nearest picture is 120 all over; 8 pixels, 16 times enlarged
    tiles = [sheet[18 + row * 152 + 18 + 64, 6 + column * 134 + 64, 0] for row in range(2) for column in range(4)]
    assert tiles == [128, 128, 120, 120] * 2
