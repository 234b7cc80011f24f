from dataclasses import replace

import pytest
import torch

from sparse_model.cost import branch_cost
from sparse_model.evaluation.measure import Cell
from sparse_model.evaluation.variants import ByNorm, NullBranch
from sparse_model.method.branches import Branch, Evaluation
from sparse_model.method.schedule import constant
from sparse_model.method.tokens import SubsetSeed

INDEX = torch.arange(6)
SG = Cell(constant(0.25, 0.75, 2), "SG", seed=1, samples=12, steps=3)
SEED = SubsetSeed(5, 2)


def inputs(bench):
    x = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    return x, 0.6, bench.reference.conditions(INDEX)


def test_three_branches_have_a_scale_each(bench):
    found = bench()
    x, sigma, condition = inputs(found)
    branches = Branch(0.25, 0, "c"), Branch(0.75, 1, "c")
    strong, weak = NullBranch(1.5, 0.5)(found.model)(x, sigma, [condition] * 2, Evaluation(branches, SEED))
    apart = [
        found.model(x, sigma, [given], Evaluation((Branch(gamma, index),), SEED))[0]
        for index, (gamma, given) in enumerate([(0.25, condition), (0.75, condition), (0.5, condition * 0)])
    ]
    expected = apart[0] + (2 - 1) * (apart[0] - apart[1]) + (1.5 - 1) * (apart[0] - apart[2])
    torch.testing.assert_close(weak + 2 * (strong - weak), expected, rtol=1e-4, atol=1e-5)


def test_a_scale_of_one_and_the_time_without_guidance_change_nothing(bench):
    found = bench()
    plain = found.draw(SG, INDEX)
    torch.testing.assert_close(found.draw(replace(SG, variant=NullBranch(1.0)), INDEX), plain, rtol=1e-4, atol=1e-4)
    assert (found.draw(replace(SG, variant=NullBranch(1.5)), INDEX) - plain).abs().max() > 0.01
    alone = replace(SG, schedule=constant(0.25, 0.75, 1))
    assert torch.equal(found.draw(replace(alone, variant=NullBranch(1.5)), INDEX), found.draw(alone, INDEX))


def test_the_third_branch_costs(bench):
    found = bench()
    cell = replace(SG, schedule=replace(SG.schedule, end=0.5), variant=NullBranch(1.5, 0.5))
    without, row = found.measure(replace(cell, variant=None)), found.measure(cell)
    extra = branch_cost(found.spec, 0.5) * 2 / 3  # two of three steps are guided
    assert row["gmacs"] * 1e9 == pytest.approx(without["gmacs"] * 1e9 + extra)
    assert row["variant"] == {"name": "NullBranch", "scale": 1.5, "gamma": 0.5}
    assert (
        len({found.key(cell), found.key(replace(cell, variant=None)), found.key(replace(cell, variant=NullBranch(2)))})
        == 3
    )


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
    ByNorm(1, largest)(found.model)(x, sigma, [condition], Evaluation((Branch(0.75),), SEED))
    tokens, kept = seen
    order = (sign * tokens.abs().sum(dim=2)).argsort(dim=1)[:, :4].sort(dim=1).values
    torch.testing.assert_close(kept, tokens.gather(1, order.unsqueeze(2).expand(-1, -1, tokens.shape[2])))


def test_without_weight_tokens_are_those_of_chance(bench):
    found = bench()
    for branch in (SG, replace(SG, schedule=constant(0.5, 1, 1))):
        by_chance, plain = (found.draw(replace(branch, variant=v), INDEX) for v in (ByNorm(0), None))
        assert torch.equal(by_chance, plain)
        assert not torch.allclose(found.draw(replace(branch, variant=ByNorm(1)), INDEX), plain, atol=0.01)
