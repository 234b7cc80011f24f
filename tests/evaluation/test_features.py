import sys

import pytest
import torch
import torch.nn.functional as F

from sparse_model.evaluation.features import LITE0, LITE2, Convolution, pretrained


def waves(side):
    """A picture that nobody needs a file for."""
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    return torch.stack([torch.sin(rows / 7), torch.cos(columns / 5), torch.sin((rows + columns) / 11)])[None]


# of the networks in the PyPI package efficientnet_lite_pytorch with the same weights and picture; it pads as at the
# side of the training, which for Lite2 is another padding than at half of it
@pytest.mark.parametrize(
    ("version", "places", "values", "total"),
    [
        (LITE0, [31, 66, 71, 600, 287, 747], [5.378845, 5.204251, 5.076989, 3.918482, 3.833381, 3.696], 235.1981),
        (
            LITE2._replace(side=260),
            [746, 38, 1116, 91, 963, 302],
            [4.286782, 2.806878, 2.798784, 2.712675, 2.706636, 2.676837],
            192.4736,
        ),
    ],
    ids=["Lite0", "Lite2"],
)
def test_features_are_those_of_the_published_networks(version, places, values, total):
    with torch.no_grad():
        found = pretrained(version)(waves(version.side))
    assert found.shape == (1, 1280)
    largest = found[0].topk(6)
    assert largest.indices.tolist() == places
    torch.testing.assert_close(largest.values, torch.tensor(values), rtol=1e-4, atol=1e-4)
    assert found.sum().item() == pytest.approx(total, rel=1e-4)


@pytest.mark.parametrize(
    ("side", "kernel", "stride", "before"), [(8, 3, 2, 0), (7, 3, 2, 1), (8, 5, 2, 1), (8, 5, 1, 2)]
)
def test_padding_is_tensorflows(side, kernel, stride, before):
    convolution = Convolution(1, 1, kernel, stride)
    x = torch.randn(1, 1, side, side)
    padded = F.pad(x, (before, kernel, before, kernel))
    expected = F.conv2d(padded, convolution.weight, stride=stride)[..., : -(-side // stride), : -(-side // stride)]
    torch.testing.assert_close(convolution(x), expected)


@pytest.mark.parametrize("version", [LITE0, LITE2])
def test_a_missing_package_is_named(monkeypatch, version):
    monkeypatch.setitem(sys.modules, version.package, None)
    with pytest.raises(ValueError, match=version.package + r".*pip install -r requirements-evaluate.txt"):
        pretrained(version)
