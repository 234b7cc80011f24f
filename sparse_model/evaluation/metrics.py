"""Distances between two sets of pictures, given as features."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

NEIGHBOURS = 5


def exact(device: torch.device) -> torch.device:
    """Where the features of a network on `device` are compared: there, but MPS has no double precision."""
    return torch.device("cpu") if device.type == "mps" else device


def check_enough(pictures: int) -> None:
    """ValueError if a reference has too few pictures."""
    if pictures <= NEIGHBOURS:
        raise ValueError(f"the reference has {pictures} pictures; the metrics need at least {NEIGHBOURS + 1}.")


@dataclass(frozen=True)
class Real:
    """The reference: features [N, D] and label weights [N, classes] of real pictures."""

    features: Tensor
    labels: Tensor

    def __post_init__(self):
        check_enough(len(self.features))

    @cached_property
    def normal(self) -> tuple[Tensor, Tensor]:
        """Mean [D] and covariance [D, D] of the features, in double precision."""
        mean, centred = _centred(self.features)
        return mean, centred.T @ centred

    @cached_property
    def radii(self) -> Tensor:
        """Distance of every picture to its NEIGHBOURS-th nearest other one [N]."""
        return _radius(self._apart)

    @cached_property
    def mean_distance(self) -> float:
        """Between two different pictures."""
        return (self._apart.sum() / (len(self.features) * (len(self.features) - 1))).item()

    @cached_property
    def likeness(self) -> float:
        """Mean kernel of two different pictures."""
        return _mean_of_pairs(_kernel(self.features, self.features))

    @cached_property
    def _apart(self) -> Tensor:
        return torch.cdist(self.features.double(), self.features.double())


def frechet_distance(real: Real, fake: Tensor) -> float:
    """Frechet distance of two feature sets [N, D], [M, D] as normal distributions, in double precision.

    What FID is with Inception's features (arXiv 1706.08500). The trace of the root of a product of covariances S and
    X'X is the sum of the roots of the eigenvalues of X S X', which is symmetric and, for few samples, small.
    """
    (mean, covariance), (other, centred) = real.normal, _centred(fake)
    spread = centred.square().sum()
    if len(centred) > centred.shape[1]:
        centred = torch.linalg.qr(centred, mode="r").R  # X'X = R'R
    values = torch.linalg.eigvalsh((centred @ covariance @ centred.T).cpu())  # small enough for a CPU
    apart = (mean - other).square().sum() + covariance.trace() + spread
    return apart.item() - 2 * values.clamp(min=0).sqrt().sum().item()


def _centred(features: Tensor) -> tuple[Tensor, Tensor]:
    """[N, D] -> their mean [D], and X [N, D] with the covariance X'X."""
    mean = features.double().mean(dim=0)
    return mean, (features.double() - mean) / (len(features) - 1) ** 0.5


def kernel_distance(real: Real, fake: Tensor) -> float:
    """1,000 times the squared maximum mean discrepancy of features [N, D] and [M, D] under the kernel
    (x . y / D + 1)^3, without bias at any number of samples.

    What KID is with Inception's features (arXiv 1801.01401); over all pairs instead of subsets.
    """
    across = _kernel(real.features, fake).mean().item()
    return 1000 * (real.likeness + _mean_of_pairs(_kernel(fake, fake)) - 2 * across)


def _kernel(a: Tensor, b: Tensor) -> Tensor:
    """[N, D], [M, D] -> [N, M]"""
    return (a.double() @ b.double().T / a.shape[1] + 1) ** 3


def _mean_of_pairs(kernel: Tensor) -> float:
    """Over pairs of two different members, [N, N]."""
    return ((kernel.sum() - kernel.trace()) / (len(kernel) * (len(kernel) - 1))).item()


def neighbourhoods(real: Real, fake: Tensor) -> dict[str, float]:
    """Precision and recall (arXiv 1904.06991), density and coverage (arXiv 2002.09797), from k nearest neighbours.

    precision: share of fakes inside the k-ball of some real picture; recall: the other way round. density: how many
    real k-radii a fake lies in, divided by k; coverage: share of real pictures with a fake in their k-ball.
    """
    if len(fake) <= NEIGHBOURS:
        raise ValueError(f"{len(fake)} pictures are too few: the metrics need at least {NEIGHBOURS + 1}.")
    across = torch.cdist(real.features.double(), fake.double())  # [N, M]
    real_radius, fake_radius = real.radii, _radius(torch.cdist(fake.double(), fake.double()))
    inside = across <= real_radius[:, None]
    return {
        "precision": inside.any(dim=0).double().mean().item(),
        "recall": (across <= fake_radius[None, :]).any(dim=1).double().mean().item(),
        "density": inside.double().sum(dim=0).mean().item() / NEIGHBOURS,
        "coverage": (across.amin(dim=1) <= real_radius).double().mean().item(),
    }


def class_consistency(real: Real, fake: Tensor, labels: Tensor) -> float:
    """How well pictures show what was asked for: fake [M, D] made from label weights [M, classes].

    Mean intersection over union of the asked labels and those of the nearest real picture. With one label per picture
    it is the accuracy of a nearest-neighbour classifier.
    """
    nearest = torch.cdist(fake.double(), real.features.double()).argmin(dim=1)
    asked, found = labels > 0, real.labels[nearest] > 0
    return ((asked & found).sum(dim=1) / (asked | found).sum(dim=1).clamp(min=1)).double().mean().item()


def relative_distance(real: Real, fake: Tensor, unguided: Tensor) -> float:
    """How far guidance moves a sample: mean feature distance to the unguided sample from the same noise.

    In units of the mean distance between two reference pictures: 1 is as different as two unrelated pictures.
    """
    return (fake - unguided).double().norm(dim=1).mean().item() / real.mean_distance


def _radius(apart: Tensor) -> Tensor:
    """Distance to the NEIGHBOURS-th nearest other member [N], from all distances [N, N]."""
    return apart.kthvalue(NEIGHBOURS + 1, dim=1).values  # the nearest is the member itself
