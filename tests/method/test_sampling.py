"""The guided Euler sampler against a slow one that takes one sample, one branch and one rule at a time."""

import itertools
import math
from dataclasses import replace

import pytest
import torch
from torch._dynamo.testing import CompileCounter

from sparse_model.conditions.text import concatenate
from sparse_model.method import sampling
from sparse_model.method.branches import Branch, Evaluation
from sparse_model.method.prediction import EDM, Epsilon, Flow
from sparse_model.method.sampling import Compiled, Denoiser, independent_condition, noise, sample
from sparse_model.method.schedule import Curve, Schedule, constant
from sparse_model.method.tokens import keep_count, subsets
from sparse_model.networks.dit import DiT

SHAPE, STEPS, SEED = (4, 8, 8), 6, 21
LABELS = torch.eye(3)[[2, 0]]


@pytest.fixture
def model(tiny_dit):
    return Denoiser(tiny_dit, Flow())


@pytest.fixture
def auxiliary(tiny_dit):
    """A different network of the same shape, which predicts data."""
    weaker = DiT(tiny_dit.config, tiny_dit.sparsity).eval().requires_grad_(False)
    weaker.load_state_dict({name: 0.7 * value for name, value in tiny_dit.state_dict().items()})
    return Denoiser(weaker, Flow("data"))


def slow_sample(schedule, main, other, other_condition):
    """Flow matching integrated in velocities, from noise at time 0 to data at time 1 as the paper counts it.

    `main` and `other` are functions (network, answers data?) of the strong and the weak branch.
    """

    def velocity(predictor, x, time, label, gamma, branch, step, i):
        network, predicts_data = predictor
        subset = subsets(SEED + i, step, schedule.selection)
        level = torch.tensor([1 - time])
        output = network(x[None], level, label[None], Evaluation((Branch(gamma, branch),), subset))[0]
        return (output - x) / (1 - time) if predicts_data else -output

    pictures = []
    for i, label in enumerate(LABELS):
        x = torch.randn(SHAPE, generator=torch.Generator().manual_seed(SEED + i))
        for step in range(STEPS):
            time = step / STEPS
            on = schedule.start <= time <= schedule.end
            omega = schedule.omega(time) if on else 1.0
            v = velocity(main, x, time, label, schedule.at(time).gamma_strong, 0, step, i)
            if on and omega != 1:
                weak = velocity(other, x, time, other_condition[i], schedule.at(time).gamma_weak, 1, step, i)
                v = omega * v + (1 - omega) * weak
            x = x + v / STEPS
        pictures.append(x)
    return torch.stack(pictures)


RANDOM = independent_condition(LABELS, SEED)
PLANS = {
    "unguided": (constant(0, 0, 1, "CFG"), "same"),
    "unguided and sparse": (constant(0.5, 0.9, 1), "same"),
    "SG": (constant(0.25, 0.75, 1.8), "same"),
    "SG, whole path dropped": (constant(0, 1, 1.8), "same"),
    "CFG": (constant(0, 0, 2, "CFG"), "null"),
    "CFG + SG": (constant(0.25, 0.75, 2, "CFG + SG"), "null"),
    "ICG": (constant(0, 0, 2, "ICG"), "random"),
    "AG": (constant(0, 0, 1.5, "AG"), "same"),
    "AG + SG, cosines": (Schedule(Curve.cosine(0, 0.6), Curve.cosine(0.6, 0), Curve.constant(1.5), "AG + SG"), "same"),
    "an interval": (replace(constant(0.25, 0.75, 2), start=0.3, end=0.7), "same"),
    "a moving scale": (Schedule(Curve.linear(0, 0.4), Curve.constant(0.8), Curve.linear(1, 3)), "same"),
}


@pytest.mark.parametrize(("schedule", "weak"), PLANS.values(), ids=PLANS)
def test_every_rule_is_the_slow_one(schedule, weak, model, auxiliary):
    condition = {"same": LABELS, "null": torch.zeros(2, 3), "random": RANDOM}[weak]
    second = auxiliary if "AG" in schedule.rule else None
    other = (auxiliary.network, True) if second else (model.network, False)
    expected = slow_sample(schedule, (model.network, False), other, condition)
    output = sample(model, LABELS, schedule, shape=SHAPE, steps=STEPS, seed=SEED, auxiliary=second)
    torch.testing.assert_close(output, expected, rtol=1e-3, atol=1e-4)
    plain = sample(model, LABELS, constant(0, 0, 1, "CFG"), shape=SHAPE, steps=STEPS, seed=SEED)
    assert schedule == PLANS["unguided"][0] or not torch.allclose(output, plain, atol=1e-2)


def test_bernoulli_subsets_are_the_evaluations(model):
    schedule = replace(constant(0.25, 0.75, 1.8), selection="bernoulli")
    output = sample(model, LABELS[:1], schedule, shape=SHAPE, steps=STEPS, seed=SEED)
    expected = slow_sample(schedule, (model.network, False), (model.network, False), LABELS)[:1]
    torch.testing.assert_close(output, expected, rtol=1e-3, atol=1e-4)


def test_gamma_0_is_the_dense_sampler_to_the_bit(model):
    def run(*plan):
        return sample(model, LABELS, constant(*plan), shape=SHAPE, steps=STEPS, seed=SEED)

    assert torch.equal(run(0, 0, 2, "CFG + SG"), run(0, 0, 2, "CFG"))
    assert torch.equal(run(0, 0.9, 1), run(0, 0, 1, "CFG"))
    dense = DiT(model.network.config).eval()  # no route at all
    dense.load_state_dict(model.network.state_dict())
    stock = sample(Denoiser(dense, Flow()), LABELS, constant(0, 0, 2, "CFG"), shape=SHAPE, steps=STEPS, seed=SEED)
    assert torch.equal(run(0, 0, 2, "CFG + SG"), stock)


def test_sample_i_is_a_batch_of_one_with_seed_plus_i(model):
    plan = constant(0.25, 0.75, 1.8)
    together = sample(model, LABELS, plan, shape=SHAPE, steps=STEPS, seed=SEED)
    alone = sample(model, LABELS[1:], plan, shape=SHAPE, steps=STEPS, seed=SEED + 1)
    torch.testing.assert_close(together[1:], alone, rtol=1e-3, atol=1e-4)
    assert torch.equal(noise(SEED, 3, SHAPE)[1:], noise(SEED + 1, 2, SHAPE))


def test_seeds(model):
    def run(seed, steps=STEPS):
        torch.rand(1)  # nothing but the seed counts
        return sample(model, LABELS, constant(0.25, 0.75, 1.8), shape=SHAPE, steps=steps, seed=seed)

    assert torch.equal(run(1), run(1))
    assert not torch.allclose(run(1), run(2), atol=1e-2)


class Recorder(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.calls = []

    def forward(self, x, t, y, evaluation):
        self.calls.append((len(x), round(t[0].item(), 4), evaluation))
        return 0 * x


def test_the_weak_branch_runs_only_where_it_guides():
    network = Recorder()
    plan = Schedule(Curve.linear(0, 0.4), Curve.constant(0.8), Curve.step(2, 1, 0.75), start=0.25)
    clean = []
    sample(
        Denoiser(network, Flow()),
        LABELS,
        plan,
        shape=SHAPE,
        steps=4,
        seed=3,
        callback=lambda i, d: clean.append((i, d)),
    )
    assert [(size, time) for size, time, _ in network.calls] == [(2, 1.0), (4, 0.75), (4, 0.5), (2, 0.25)]
    branches = [[(branch.index, branch.gamma) for branch in evaluation.branches] for *_, evaluation in network.calls]
    assert branches == [[(0, 0)], [(0, 0.133333), (1, 0.8)], [(0, 0.2), (1, 0.8)], [(0, 0.266667)]]  # sixths of 0.4
    assert [(e.subsets.orders.seed, e.subsets.evaluation) for *_, e in network.calls] == [
        (3, step) for step in range(4)
    ]
    assert [step for step, _ in clean] == [0, 1, 2, 3]
    assert all(picture.shape == (2, *SHAPE) for _, picture in clean)


def test_with_a_second_checkpoint_each_network_runs_one_branch():
    main, weaker = Recorder(), Recorder()
    plan = constant(0.1, 0.6, 2, "AG + SG")
    sample(Denoiser(main, Flow()), LABELS, plan, shape=SHAPE, steps=2, auxiliary=Denoiser(weaker, Flow()))
    for network, expected in ((main, (0.1, 0)), (weaker, (0.6, 1))):
        assert [[(b.gamma, b.index) for b in evaluation.branches] for *_, evaluation in network.calls] == [
            [expected]
        ] * 2


@pytest.mark.parametrize(("rule", "sources"), [("SG", (0, 0)), ("CFG + SG", (0, 1)), ("ICG", (0, 1))])
def test_branches_of_one_condition_are_one_input(rule, sources):
    network = Recorder()
    sample(Denoiser(network, Flow()), LABELS, constant(0.1, 0.6, 2, rule), shape=SHAPE, steps=1)
    assert [evaluation.sources for *_, evaluation in network.calls] == [sources]


def test_a_second_checkpoint_comes_with_its_rules(model, auxiliary):
    with pytest.raises(ValueError, match=r"AG \+ SG needs a weaker second checkpoint"):
        sample(model, LABELS, constant(0, 0, 2, "AG + SG"), shape=SHAPE, steps=2)
    with pytest.raises(ValueError, match="SG takes no weaker second checkpoint"):
        sample(model, LABELS, constant(0, 0.5, 2), shape=SHAPE, steps=2, auxiliary=auxiliary)


def test_independent_conditions_are_labels_of_their_own():
    labels = independent_condition(torch.zeros(200, 5), 0)
    assert (labels.sum(dim=1) == 1).all() and set(labels.unique().tolist()) == {0, 1}
    assert (labels.sum(dim=0) > 20).all()
    assert torch.equal(labels[7:9], independent_condition(torch.zeros(2, 5), 7))


def test_behind_the_last_seed_comes_the_first():
    """A host's seeds reach up to 2**64 - 1; negative ones are those from there down, as PyTorch has them."""
    last, labels = 2**64 - 1, torch.zeros(2, 5)
    assert torch.equal(independent_condition(labels, last)[1:], independent_condition(labels[:1], 0))
    assert torch.equal(noise(last, 2, SHAPE)[1:], noise(0, 1, SHAPE))
    generator = torch.Generator().manual_seed(-5)
    assert torch.equal(noise(-5, 1, SHAPE)[0], torch.randn(SHAPE, generator=generator))


MEAN, SPREAD = 0.6, 0.4


class Gaussian(torch.nn.Module):
    """The exact network of data ~ N(MEAN, SPREAD^2), for which the sampling ODE can be solved by hand."""

    def __init__(self, prediction):
        super().__init__()
        self.prediction = prediction

    def forward(self, x, t, y, evaluation):
        t = t.reshape(-1, 1, 1, 1)
        if isinstance(self.prediction, Flow):
            variance = (1 - t) ** 2 * SPREAD**2 + t**2
            clean = MEAN + (1 - t) * SPREAD**2 / variance * (x - (1 - t) * MEAN)
            return (x - clean) / t
        if isinstance(self.prediction, Epsilon):
            table = Epsilon().table()
            low = t.floor().long().clamp(0, 998)
            level = (table.log()[low] + (t - low) * (table.log()[low + 1] - table.log()[low])).exp()
            x = x * (level**2 + 1).sqrt()
        else:
            level = (4 * t).exp()
            x = x * (level**2 + 0.25).sqrt()
        clean = MEAN + SPREAD**2 / (SPREAD**2 + level**2) * (x - MEAN)
        if isinstance(self.prediction, Epsilon):
            return (x - clean) / level
        total = level**2 + 0.25
        return (clean - x * 0.25 / total) / (level * 0.5 / total.sqrt())


@pytest.mark.parametrize("prediction", [Flow(), Epsilon(), EDM()])
def test_euler_converges_to_the_exact_solution(prediction):
    """Every point keeps its place in the distribution: its distance from the mean in standard deviations."""
    start = noise(0, 2, SHAPE)
    first = prediction.sigmas(10)[0].item()
    if isinstance(prediction, Flow):
        exact = MEAN + SPREAD * start
    else:
        exact = MEAN + SPREAD * (first * start - MEAN) / math.sqrt(SPREAD**2 + first**2)
    errors = []
    for steps in (20, 40, 80, 160):
        denoiser = Denoiser(Gaussian(prediction), prediction)
        output = sample(denoiser, torch.zeros(2, 1), constant(0, 0, 1, "CFG"), shape=SHAPE, steps=steps)
        errors.append((output - exact).abs().max().item())
    assert errors[-1] < 0.05
    assert all(1.5 < coarse / fine < 2.6 for coarse, fine in itertools.pairwise(errors))  # first order


@pytest.mark.slow
def test_a_compiled_network_compiles_once_per_count_of_tokens(model):
    """4 counts in 8 steps of a moving gamma; another seed and other tokens compile nothing."""
    counter = CompileCounter()
    compiled = Denoiser(Compiled(model.network, backend=counter), model.prediction)
    plan = Schedule(Curve.constant(0.25), Curve.linear(0.5, 0.75), Curve.constant(1.8))
    counts = {keep_count(16, plan.at(step / 8).gamma_weak) for step in range(8)}
    assert len(counts) > 2
    for seed in (1, 2):
        inputs = {"shape": SHAPE, "steps": 8, "seed": seed}
        torch.testing.assert_close(sample(compiled, LABELS, plan, **inputs), sample(model, LABELS, plan, **inputs))
        assert counter.frame_count == len(counts)


def test_the_conditions_of_a_run_are_joined_once_and_anew_when_others_come(model, monkeypatch):
    joined = []

    def counted(conditions):
        joined.append(len(conditions))
        return concatenate(conditions)

    monkeypatch.setattr(sampling, "concatenate", counted)
    plan = replace(constant(0.25, 0.75, 1.8), start=0.5)
    first = sample(model, LABELS, plan, shape=SHAPE, steps=STEPS, seed=SEED)
    assert joined == [1, 2]  # one branch, then two
    other = sample(model, LABELS.flip(0), plan, shape=SHAPE, steps=STEPS, seed=SEED)
    monkeypatch.undo()
    assert torch.equal(sample(model, LABELS, plan, shape=SHAPE, steps=STEPS, seed=SEED), first)
    assert not torch.allclose(other, first, atol=1e-2)
