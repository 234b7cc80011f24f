"""The real pictures that samples are measured against."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from pathlib import Path

import torch
from torch import Tensor, nn

from ..checkpoints.spec import ModelSpec
from ..training.config import CONFIGS
from ..training.data import Pictures, load
from .metrics import Real, check_enough, exact

MOST = 8_000  # pictures; more would be compared for long and change figures little
BATCHES = {"cpu": 50}  # pictures that a feature network takes at once
BATCH = 500  # elsewhere


@dataclass(frozen=True)
class Reference:
    """Label weights [N, classes] of real pictures, what gives their features in the two networks, and the `digest` that
    identifies the pictures in results. Features are extracted when a cell is measured: rows that are found need none.
    """

    labels: Tensor
    features: tuple[Callable[[], Tensor], Callable[[], Tensor]]
    digest: str

    @cached_property
    def real(self) -> Real:
        return self._of(0)

    @cached_property
    def second(self) -> Real:
        return self._of(1)

    def _of(self, network: int) -> Real:
        features = self.features[network]()
        return Real(features, self.labels.to(features.device))

    def conditions(self, index: Tensor) -> Tensor:
        """Label weights [M, classes] of samples `index`: those of the real pictures in a fixed random order, over and
        over, so that samples have the labels that the reference has."""
        count = len(self.labels)
        order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
        return self.labels[order[index % count]]


def read_reference(
    path: Path, spec: ModelSpec, config: str, features: Sequence[nn.Module], held_out: bool = False
) -> Reference:
    """The pictures of a packed .npz that a training run of `config` sees (or those that it does not), or all of
    FOLDER/class/*; of more than MOST, that many, chosen at random and always the same.

    `features` are the two feature networks. Labels go by name. ValueError if the pictures' labels are not the model's.
    """
    if path.is_dir():
        if held_out:
            raise ValueError(
                f"'{path}' is a folder of pictures, none of which was held out; run it without --held-out."
            )
        pictures = load(path, spec.config.input_size)
        index = torch.arange(len(pictures))
    else:
        if config not in CONFIGS:
            raise ValueError(
                f"no training configuration is called '{config}'; name one by --config: {', '.join(CONFIGS)}."
            )
        pictures = _packed(path, spec.config.input_size, config)
        index = pictures.split(CONFIGS[config].held_out, CONFIGS[config].seed)[held_out]
    if len(index) > MOST:
        index = index[torch.randperm(len(index), generator=torch.Generator().manual_seed(0))[:MOST]]
    labels = _labels(pictures, index, spec, path)
    digest = hashlib.sha256(pictures.images[index].numpy().tobytes() + labels.numpy().tobytes()).hexdigest()[:12]
    check_enough(len(index))
    return Reference(labels, tuple(partial(extract, network, pictures, index) for network in features), digest)


@lru_cache(maxsize=1)
def _packed(path: Path, size: int, config: str) -> Pictures:
    """Read once for the pictures that a training saw and for those that it did not."""
    return load(path, size, **CONFIGS[config].filters)


@torch.inference_mode()
def extract(features: nn.Module, pictures: Pictures, index: Tensor) -> Tensor:
    """Features [N, D] of pictures, on the device of the network."""
    device = next((parameter.device for parameter in features.parameters()), torch.device("cpu"))
    batches = index.split(BATCHES.get(device.type, BATCH))
    return torch.cat([features(pictures.pixels(part).to(device)) for part in batches]).to(exact(device))


def _labels(pictures: Pictures, index: Tensor, spec: ModelSpec, path: Path) -> Tensor:
    """The pictures' label weights under the model's ids [N, classes]."""
    known = {name: i for i, name in enumerate(spec.labels)}
    missing = [name for name in pictures.label_names if name not in known]
    if missing:
        raise ValueError(
            f"'{path}' has {len(missing)} labels that the model does not know, such as '{missing[0]}'; the model's are "
            f"{', '.join(spec.labels[:4])}, \u2026"
        )
    labels = torch.zeros(len(index), len(spec.labels))
    labels[:, [known[name] for name in pictures.label_names]] = pictures.weights(index)
    return labels
