import pytest
import torch

from sparse_model.evaluation.metrics import (
    Real,
    class_consistency,
    frechet_distance,
    kernel_distance,
    neighbourhoods,
    relative_distance,
)


def clouds(*, shift=0.0, scale=1.0, count=300):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, 6, generator=generator) * scale + shift


class Identity(torch.nn.Module):
    """The feature module that torchmetrics is given where features are computed already: hands them on."""

    def __init__(self, num_features):
        super().__init__()
        self.num_features = num_features

    def forward(self, features):
        return features


def frechet(real, fake):
    return frechet_distance(Real(real, torch.zeros(len(real), 1)), fake)


def test_frechet_distance_of_one_set_to_itself_is_zero():
    assert frechet(clouds(), clouds()) == pytest.approx(0, abs=1e-9)


def test_frechet_distance_of_a_shift_is_its_square():
    assert frechet(clouds(), clouds(shift=2.0)) == pytest.approx(6 * 4.0, rel=1e-5)


def test_frechet_distance_of_a_stretch_is_what_its_definition_says():
    variance = clouds().double().var(dim=0).sum().item()  # tr(S + 9 S - 2 * 3 S), around a mean that triples
    mean = clouds().double().mean(dim=0).square().sum().item()
    assert frechet(clouds(), clouds(scale=3.0)) == pytest.approx(4 * variance + 4 * mean, rel=1e-5)


@pytest.mark.parametrize("fakes", [8, 40, 200])
@pytest.mark.parametrize("rank", [12, 48])
def test_frechet_distance_is_torchmetrics(fakes, rank):
    """Of features [N, 48] above zero, with fewer samples than dimensions and more, and of a lower rank."""
    from torchmetrics.image.fid import FrechetInceptionDistance

    generator = torch.Generator().manual_seed(0)
    mixed = torch.randn(rank, 48, generator=generator)
    real, fake = (
        torch.rand(count, rank, generator=generator) @ mixed * scale + shift
        for count, scale, shift in ((300, 1.0, 0.0), (fakes, 0.8, 0.3))
    )
    metric = FrechetInceptionDistance(Identity(48))
    metric.update(real.double(), real=True)
    metric.update(fake.double(), real=False)
    assert frechet(real, fake) == pytest.approx(metric.compute().item(), rel=1e-6)


def test_neighbourhoods_by_their_definitions():
    generator = torch.Generator().manual_seed(2)
    real, fake, k = torch.randn(25, 3, generator=generator), torch.randn(30, 3, generator=generator) + 1, 5

    def radius(points, i):
        return sorted((points[i] - point).norm().item() for point in points)[k]

    real_radius = [radius(real, i) for i in range(25)]
    fake_radius = [radius(fake, i) for i in range(30)]
    apart = [[(a - b).norm().item() for b in fake] for a in real]
    found = neighbourhoods(Real(real, torch.zeros(25, 1)), fake)
    inside = [[apart[i][j] <= real_radius[i] for j in range(30)] for i in range(25)]
    assert found["precision"] == pytest.approx(sum(any(row[j] for row in inside) for j in range(30)) / 30)
    assert found["recall"] == pytest.approx(
        sum(any(apart[i][j] <= fake_radius[j] for j in range(30)) for i in range(25)) / 25
    )
    assert found["density"] == pytest.approx(sum(map(sum, inside)) / (k * 30))
    assert found["coverage"] == pytest.approx(sum(any(row) for row in inside) / 25)
    assert 0 < found["precision"] < 1 and 0 < found["coverage"] < 1


def test_class_consistency_is_the_overlap_with_the_nearest_pictures_labels():
    features = torch.eye(6)
    labels = torch.tensor([[1, 1, 0], [0, 1, 1], [1, 0, 0], [1, 0, 0], [1, 0, 0], [1, 0, 0]])
    fake = torch.stack([features[0], features[1] * 0.9, features[2]])
    asked = torch.tensor([[1.0, 1, 0], [1, 0, 1], [0, 1, 0]])
    assert class_consistency(Real(features, labels), fake, asked) == pytest.approx((1 + 1 / 3 + 0) / 3)


def test_relative_distance_is_one_for_unrelated_pictures():
    real = torch.eye(6) * 3  # any two are 3 sqrt 2 apart
    assert relative_distance(
        Real(real, real), torch.zeros(1, 6), torch.tensor([[3.0, 3, 0, 0, 0, 0]])
    ) == pytest.approx(1)


def test_too_few_pictures():
    with pytest.raises(ValueError, match="the reference has 5 pictures; the metrics need at least 6"):
        Real(torch.zeros(5, 2), torch.zeros(5, 1))
    with pytest.raises(ValueError, match="4 pictures are too few: the metrics need at least 6"):
        neighbourhoods(Real(clouds(), clouds()), torch.zeros(4, 6))


def test_the_kernel_distance_is_torchmetrics_over_all_pairs():
    from torchmetrics.image.kid import KernelInceptionDistance

    generator = torch.Generator().manual_seed(0)
    real, fake = (torch.randn(40, 8, generator=generator) + shift for shift in (0, 0.5))
    metric = KernelInceptionDistance(Identity(8), subsets=1, subset_size=40)
    metric.update(real, real=True)
    metric.update(fake, real=False)
    expected, _ = metric.compute()
    assert kernel_distance(Real(real, torch.eye(40)), fake) == pytest.approx(1000 * expected.item(), rel=1e-3)


def test_the_kernel_distance_has_no_bias_at_few_samples():
    generator = torch.Generator().manual_seed(0)
    real = Real(torch.randn(400, 8, generator=generator), torch.eye(400))
    few = torch.tensor([kernel_distance(real, torch.randn(10, 8, generator=generator)) for _ in range(200)])
    assert few.mean().abs() < 3 * few.std() / 200**0.5
    moved = torch.tensor([kernel_distance(real, torch.randn(10, 8, generator=generator) + 0.5) for _ in range(20)])
    assert moved.mean() > 3 * few.std()
