from dataclasses import replace

import pytest
import torch

from sparse_model.cost import counter
from sparse_model.evaluation.measure import Cell
from sparse_model.evaluation.variants import ByNorm, Ordered, Overshoot, fixed, nested, stratified
from sparse_model.method.branches import Branch, Evaluation
from sparse_model.method.sampling import Compiled, Denoiser
from sparse_model.method.schedule import constant
from sparse_model.method.tokens import Subsets, TokenOrders, random_scores, subsets

INDEX = torch.arange(6)
SG = Cell(constant(0.25, 0.75, 2), "SG", seed=1, samples=12, steps=3)
KEPT = subsets(5, 2)


def inputs(bench):
    x = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    return x, 0.6, bench.reference.conditions(INDEX)


def test_the_third_branch_is_measured_and_costs(bench):
    found = bench()
    cell = replace(SG, schedule=replace(SG.schedule, rule="SG beside CFG", end=0.5), cfg=1.5)
    without, row = found.measure(replace(cell, cfg=1.0)), found.measure(cell)
    extra = counter(found.spec)((Branch(),))
    assert row["gmacs"] * 1e9 == pytest.approx(without["gmacs"] * 1e9 + extra, rel=0.01)
    assert row["cfg"] == 1.5 and "cfg" not in without
    assert len({found.key(cell), found.key(replace(cell, cfg=1.0)), found.key(replace(cell, cfg=2.0))}) == 3


def test_nested_subsets_lie_in_each_other():
    def draw(order):
        kept = Subsets(TokenOrders(3, scores=order), 5)
        return kept.draw(0, 4, 64, 0.5).tolist(), kept.draw(1, 4, 64, 0.9).tolist()

    many, few = draw(nested)
    assert all(set(a) < set(b) for a, b in zip(few, many, strict=True))
    many, few = draw(random_scores)
    assert not all(set(a) < set(b) for a, b in zip(few, many, strict=True))


def test_fixed_subsets_stay_over_evaluations():
    orders = TokenOrders(3, scores=fixed)
    assert Subsets(orders, 0).draw(1, 2, 64, 0.5).tolist() == Subsets(orders, 7).draw(1, 2, 64, 0.5).tolist()
    assert Subsets(orders).draw(1, 2, 64, 0.5).tolist() != Subsets(orders).draw(0, 2, 64, 0.5).tolist()


def test_stratified_subsets_cover_the_grid_evenly_and_every_token_alike():
    index = Subsets(TokenOrders(scores=stratified)).draw(0, 400, 64, 0.75)
    assert index.shape == (400, 16)
    quarters = (index % 8 // 4) + 2 * (index // 32)
    for quarter in range(4):  # 16 tokens over 4 quarters: 4 in each, one more or less
        counts = (quarters == quarter).sum(dim=1)
        assert counts.min() >= 2 and counts.max() <= 6 and (counts == 4).float().mean() > 0.5
    kept = torch.bincount(index.flatten(), minlength=64) / 400
    assert (kept - 0.25).abs().max() < 0.12


@pytest.mark.parametrize("variant", [Ordered("nested"), ByNorm(1)], ids=["order", "norm"])
def test_a_variant_changes_the_tokens_of_a_compiled_network_too(bench, variant):
    """What is drawn in front of the network is the variant's, not chance."""
    found = bench()
    network = entering(found)
    x, sigma, condition = inputs(found)
    branches = Branch(0.25, 0, "c"), Branch(0.75, 1, "c")

    def run(model):
        return torch.cat(variant(model)(x, sigma, [condition] * 2, Evaluation(branches, KEPT)))

    plain = Denoiser(network, found.spec.prediction)
    compiled = Denoiser(Compiled(network, backend="eager"), found.spec.prediction)
    torch.testing.assert_close(run(compiled), run(plain), rtol=1e-4, atol=1e-5)
    by_chance = torch.cat(plain(x, sigma, [condition] * 2, Evaluation(branches, KEPT)))
    assert not torch.allclose(run(plain), by_chance, atol=0.01)


def entering(bench):
    """The tokens [6, T, D] that enter the route of the tiny model, and those that leave its first routed layer."""
    network = bench.model.network.__closure__  # the bench wraps the network; its own modules are in there
    return next(cell.cell_contents for cell in network if hasattr(cell.cell_contents, "blocks"))


@pytest.mark.parametrize(("largest", "sign"), [(False, 1), (True, -1)])
def test_tokens_are_kept_by_their_norm(bench, monkeypatch, largest, sign):
    found = bench()
    network, seen = entering(found), []
    network.blocks[0].register_forward_hook(lambda _, __, output: seen.append(output))
    network.blocks[1].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    x, sigma, condition = inputs(found)
    ByNorm(1, largest)(found.model)(x, sigma, [condition], Evaluation((Branch(0.75),), KEPT))
    tokens, kept = seen
    order = (sign * tokens.abs().sum(dim=2)).argsort(dim=1)[:, :4].sort(dim=1).values
    torch.testing.assert_close(kept, tokens.gather(1, order.unsqueeze(2).expand(-1, -1, tokens.shape[2])))


def test_without_weight_tokens_are_those_of_chance(bench):
    found = bench()
    for branch in (SG, replace(SG, schedule=constant(0.5, 1, 1))):
        by_chance, plain = (found.draw(replace(branch, variant=v), INDEX) for v in (ByNorm(0), None))
        assert torch.equal(by_chance, plain)
        assert not torch.allclose(found.draw(replace(branch, variant=ByNorm(1)), INDEX), plain, atol=0.01)


def test_a_step_overshoots_between_its_bounds(bench):
    found = bench()
    x, _, condition = inputs(found)
    for sigma, gain in ((0.95, 1), (0.8, 1.5), (0.1, 1.5), (0.02, 1)):
        ways = (found.model, Overshoot(1.5)(found.model))
        plain, more = (way(x, sigma, [condition], Evaluation((Branch(0.5),), KEPT))[0] for way in ways)
        torch.testing.assert_close(x - more, gain * (x - plain), rtol=1e-4, atol=1e-5)
