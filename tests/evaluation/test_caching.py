from dataclasses import replace

import pytest
import torch

from sparse_model.evaluation.caching import Cached, EasyCache
from sparse_model.evaluation.measure import UNGUIDED, Cell
from sparse_model.method.branches import Branch, Evaluation
from sparse_model.method.schedule import constant
from sparse_model.method.tokens import subsets

INDEX = torch.arange(6)
CFG = Cell(constant(0, 0, 2, "CFG"), "CFG", seed=1, samples=12, steps=12)
SPARSE = constant(0.25, 0.75, 2, "CFG + SG")


def cached(threshold, **settings):
    return replace(CFG, variant=EasyCache(threshold, **settings))


@pytest.mark.parametrize("schedule", [CFG.schedule, SPARSE], ids=["CFG", "CFG + SG"])
def test_no_threshold_is_no_cache(bench, schedule):
    found, cell = bench(), replace(CFG, schedule=schedule)
    pictures, share = found._drawn(replace(cell, variant=EasyCache(0.0)), INDEX)
    torch.testing.assert_close(pictures, found.draw(cell, INDEX), rtol=1e-5, atol=1e-5)
    assert share == 1


def test_what_is_left_out_is_guessed_from_the_last_evaluation(bench):
    """With a threshold that nothing reaches, D stays the input plus the last difference from where rates are known."""
    found = bench()
    calls = []
    network = found.model.network
    counted = type(found.model)(lambda x, *given: (calls.append(len(x)), network(x, *given))[1], found.model.prediction)
    model = EasyCache(1e9, start=0, end=1)(counted)
    seen = []

    def step(x, sigma):
        seen.append(model(x, sigma, [found.reference.conditions(INDEX)], Evaluation((Branch(),), subsets(0)))[0])

    xs = [torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(i)) for i in range(4)]
    for x, sigma in zip(xs, (0.9, 0.7, 0.5, 0.3), strict=True):
        step(x, sigma)
    assert calls == [6, 6] and model.share(len) == 0.5  # the first knows nothing, the second no rate
    torch.testing.assert_close(seen[3] - xs[3], seen[1] - xs[1])


@pytest.mark.parametrize("schedule", [CFG.schedule, SPARSE], ids=["CFG", "CFG + SG"])
def test_a_sample_is_the_same_in_any_batch(bench, schedule):
    found, cell = bench(), replace(cached(0.3), schedule=schedule)
    whole, share = found._drawn(cell, torch.arange(12))
    parts = torch.cat([found.draw(cell, torch.arange(*ends)) for ends in ((0, 5), (5, 12))])
    torch.testing.assert_close(whole, parts, rtol=1e-4, atol=1e-4)
    assert 0.2 < share < 1


def test_a_row_counts_what_ran(bench):
    found = bench()
    dense, less = found.measure(CFG), found.measure(cached(0.3))
    assert less["cost"] < 0.95 * dense["cost"] and less["gmacs"] < 0.95 * dense["gmacs"]
    assert less["variant"]["threshold"] == 0.3 and less["frechet"] != dense["frechet"]
    assert found.key(CFG) != found.key(cached(0.3)) != found.key(cached(0.2))


def test_an_interval_of_guidance_starts_the_cache_again(bench):
    schedule = replace(CFG.schedule, start=0.3, end=0.6)
    pictures, share = bench()._drawn(replace(cached(0.3), schedule=schedule), INDEX)
    assert pictures.isfinite().all() and share < 1


def test_no_guidance_has_one_branch(bench):
    assert bench().draw(replace(cached(0.3), schedule=UNGUIDED), INDEX).isfinite().all()


def test_what_is_left_out_counts_as_much_as_its_branches():
    """Of two evaluations, one of two dense branches and one of a sparse one, the second is left out."""
    model = Cached(torch.nn.Identity(), None, EasyCache())
    dense, sparse = (Branch(), Branch(index=1)), (Branch(0.75),)
    model.memory.asked.update({dense: 4, sparse: 4})
    model.memory.ran.update({dense: 4, sparse: 0})
    assert model.share(lambda branches: sum(1 - branch.gamma for branch in branches)) == pytest.approx(8 / 9)
