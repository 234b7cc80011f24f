"""A tiny model that makes 8 x 8 pictures of two classes, real pictures of them, and features that cost nothing."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from sparse_model.checkpoints.checkpoint import save
from sparse_model.checkpoints.spec import ModelSpec
from sparse_model.evaluation.measure import Bench
from sparse_model.evaluation.reference import read_reference
from sparse_model.evaluation.results import Results
from sparse_model.evaluation.sweep import Sizes, Sweep
from sparse_model.method.prediction import Flow
from sparse_model.method.sparsity import Route, Sparsity
from sparse_model.networks.dit import DiT, DiTConfig


class Colours(nn.Module):
    """Features [N, 12]: the mean colour of each quarter of a picture."""

    def forward(self, x):
        return nn.functional.adaptive_avg_pool2d(x, 2).flatten(1)


@pytest.fixture
def features():
    """The two feature networks."""
    return Colours(), nn.Sequential(nn.AdaptiveAvgPool2d((1, 4)), nn.Flatten())


@pytest.fixture
def folder(tmp_path):
    """FOLDER/cat/*.png bright on the left, FOLDER/dog/*.png bright on the right; ten each."""
    generator = np.random.default_rng(0)
    for name, columns in (("cat", slice(0, 4)), ("dog", slice(4, 8))):
        (tmp_path / "real" / name).mkdir(parents=True)
        for i in range(10):
            pixels = generator.integers(0, 60, (8, 8, 3), dtype=np.uint8)
            pixels[:, columns] += 180
            Image.fromarray(pixels).save(tmp_path / "real" / name / f"{i}.png")
    return tmp_path / "real"


@pytest.fixture
def checkpoint(tmp_path):
    def make(name="tiny", seed=0, labels=("cat", "dog"), sparsity=Sparsity((Route(1, -2),)), width=32):
        config = DiTConfig(8, 2, 3, width, 6, 1, num_classes=len(labels))
        network = DiT(config)
        generator = torch.Generator().manual_seed(seed)
        for parameter in network.parameters():
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
        spec = ModelSpec("dit", config, Flow("data"), sparsity, labels, "pixels", title="tiny", license="MIT")
        save(network.state_dict(), spec, tmp_path / f"{name}.safetensors")
        return tmp_path / f"{name}.safetensors"

    return make


@pytest.fixture
def bench(checkpoint, folder, features):
    def make(path=None, **settings):
        settings = {"auxiliary": checkpoint("early", seed=1), "batch": 8} | settings
        return Bench(
            path or checkpoint(), lambda spec: read_reference(folder, spec, "icons-32", features), features, **settings
        )

    return make


@pytest.fixture
def sweep(bench, tmp_path):
    """A sweep of a few pictures."""
    sizes = Sizes(search=8, final=8, seeds=2, steps=2, trials=3)

    def make(**settings):
        found = bench(**settings)
        return Sweep(found, Results(tmp_path / "results.jsonl", found.digest), sizes)

    return make
