"""Multiply-adds against the paper's table 2, against PyTorch's own counter, and across sparsity rates."""

from dataclasses import replace

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from sparse_model.checkpoints.checkpoint import build
from sparse_model.checkpoints.spec import ModelSpec
from sparse_model.conditions.text import Text, TextSpec
from sparse_model.cost import Cost, _counted, _on_shapes, counter, step_cost
from sparse_model.method.branches import Branch, Evaluation
from sparse_model.method.prediction import EDM, Epsilon, Flow
from sparse_model.method.schedule import PRESETS, constant
from sparse_model.method.sparsity import Route, Sparsity
from sparse_model.method.tokens import keep_count
from sparse_model.networks.dit import DiT, DiTConfig
from sparse_model.networks.mdt import MDTConfig
from sparse_model.networks.microdit import MicroDiTConfig
from sparse_model.networks.nitro_dit import NitroDiTConfig
from sparse_model.networks.nitro_mmdit import NitroMMDiTConfig
from sparse_model.networks.sprint import SprintConfig
from sparse_model.networks.srdit import SRDiTConfig
from sparse_model.pictures.cost_plot import SHARED, cost_plot
from sparse_model.pictures.schedule_plot import BOTTOM, COLORS, LEFT, RIGHT, TOP

XL = ModelSpec.published("SiT-XL/2", Sparsity((Route(2, 24),)))
SMALL = ModelSpec(
    "dit", DiTConfig(16, 2, 4, 64, 5, 2, num_classes=9), Flow(), Sparsity((Route(1, 1), Route(2, -2, 0.5)))
)


@pytest.mark.parametrize(
    "schedule, published",
    [
        (constant(0, 0, 1, "CFG"), 114.42),
        (constant(0, 0, 1.5, "CFG"), 228.84),
        (PRESETS["SG_FLOPS"], 97.67),
        (PRESETS["SG_FID"], 173.16),
    ],
    ids=["unguided", "CFG", "SG_FLOPS", "SG_FID"],
)
def test_table_2(schedule, published):
    """The paper runs its branches apart, and its cosines are smooth."""
    cost = step_cost(XL, schedule, 40)
    assert (cost.strong + cost.weak) / 1e9 == pytest.approx(published, rel=0.0025)


def test_one_pass_of_both_branches_is_cheaper_than_the_paper():
    cost = step_cost(XL, PRESETS["SG_FLOPS"], 40)
    block = 12 * 1152**2 * 256  # attention and MLP of one of the two blocks in front of the route
    assert cost.shared > 2 * block
    assert cost.total / 1e9 < 89.5


@pytest.mark.parametrize("rule", ["CFG + SG", "AG + SG"])
def test_branches_of_different_inputs_or_networks_share_nothing(rule):
    assert step_cost(SMALL, constant(0.2, 0.8, 2, rule), 4).shared == 0


@pytest.mark.parametrize("gammas", [(0, 0.5), (0.3, 0.9), (0.5, 1), (0, 0.5, 0), (0.3, 0.9, 0.9)])
@pytest.mark.parametrize("conditions", ["ccc", "cnn", "ccn"])
def test_a_shared_pass_against_the_counter_of_pytorch(gammas, conditions):
    """Of branches of one prompt and of two."""
    network, count = DiT(SMALL.config, SMALL.sparsity), len(gammas)
    branches = tuple(Branch(gamma, i, given) for i, (gamma, given) in enumerate(zip(gammas, conditions, strict=False)))
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as flops, torch.no_grad():
        network(torch.zeros(count, 4, 16, 16), torch.zeros(count), torch.zeros(count, 9), Evaluation(branches))
    expected = sum(
        n for op, n in flops.get_flop_counts()["Global"].items() if not ("attention" in str(op) or "bmm" in str(op))
    )
    assert counter(SMALL)(branches) == expected // 2


@pytest.mark.parametrize("gamma", [0, 0.3, 0.5, 0.9, 0.99, 1])
@pytest.mark.parametrize("attention", [False, True])
def test_against_the_counter_of_pytorch(gamma, attention):
    network = DiT(SMALL.config, SMALL.sparsity)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as flops, torch.no_grad():
        network(torch.zeros(1, 4, 16, 16), torch.zeros(1), torch.zeros(1, 9), Evaluation((Branch(gamma),)))
    expected = sum(
        n
        for op, n in flops.get_flop_counts()["Global"].items()
        if attention or not ("attention" in str(op) or "bmm" in str(op))
    )
    assert counter(SMALL, attention)((Branch(gamma),)) == expected // 2


def test_outside_the_active_interval_only_the_strong_branch_costs():
    schedule = PRESETS["SG_FLOPS"]
    half = type(schedule)(schedule.gamma_strong, schedule.gamma_weak, schedule.omega, start=0.0, end=0.49)
    assert step_cost(XL, half, 10).weak == pytest.approx(step_cost(XL, schedule, 10).weak / 2)
    assert step_cost(XL, half, 10).strong == step_cost(XL, schedule, 10).strong


SPRINT = ModelSpec("sprint", SprintConfig(8, width=48, depth=3, heads=4, num_classes=5), Flow(), Sparsity(mask=0.75))
SRDIT = ModelSpec(
    "srdit",
    SRDiTConfig(8, 1, 4, width=48, depth=3, heads=4, num_classes=5, class_width=40, class_channels=1),
    Flow(),
    Sparsity(mask=0.75),
)
MICRODIT = ModelSpec(
    "microdit",
    MicroDiTConfig(
        input_size=8, width=64, depth=2, mixer_width=32, mixer_depth=2, attention=(32, 32, 48, 64),
        hidden=(48, 64, 80, 96), experts=(0, 4, 4, 0), text_width=24, text_hidden=56, head_width=16,
    ),
    EDM(0.9),
    Sparsity(mask=0.75),
    text=TextSpec("clip-h", 24, 6),
)  # fmt: skip

MDT = ModelSpec(
    "mdt", MDTConfig(input_size=8, width=48, depth=3, heads=4, num_classes=5, half=2), Epsilon(), Sparsity(mask=0.3)
)
NITRO = {
    "input_size": 8, "in_channels": 4, "width": 48, "depth": 5, "heads": 4, "hidden": 96, "text_width": 24,
}  # fmt: skip
NITRO_DIT, NITRO_MMDIT = (
    ModelSpec(name, config, Flow(), Sparsity(mask=0.5), text=TextSpec("llama3.2-1b", 24, 6))
    for name, config in (("nitro-dit", NitroDiTConfig(**NITRO)), ("nitro-mmdit", NitroMMDiTConfig(**NITRO, dual=4)))
)


@pytest.mark.parametrize("gamma", [0, 0.5, 0.75, 1])
@pytest.mark.parametrize(
    "spec", [SPRINT, SRDIT, MICRODIT, MDT, NITRO_DIT, NITRO_MMDIT], ids=lambda spec: spec.architecture
)
def test_every_family_against_the_counter_of_pytorch(spec, gamma):
    """Attention and experts, which take whole tokens, too."""
    condition = torch.zeros(1, 5) if spec.text is None else Text(torch.zeros(1, 6, 24), torch.ones(1, 6, dtype=bool))
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as flops, torch.no_grad():
        build(spec)(torch.zeros(1, 4, 8, 8), torch.zeros(1), condition, Evaluation((Branch(gamma),)))
    assert counter(spec, attention=True)((Branch(gamma),)) == flops.get_total_flops() // 2


def test_the_picture_stacks_what_a_step_runs():
    """Both branches' share at the bottom, the strong one's rest on it, then the weak one's; nothing above."""
    step = Cost(unguided=60e9, cfg=120e9, strong=60e9, weak=30e9, shared=10e9)
    alone = Cost(unguided=60e9, cfg=120e9, strong=60e9, weak=0, shared=0)
    picture = cost_plot([step, alone])

    def color(along: float, value: float) -> str:
        top = 120 * 1.12
        x, y = LEFT + (RIGHT - LEFT) * along, BOTTOM - (BOTTOM - TOP) * value / top
        return "#{:02x}{:02x}{:02x}".format(*picture.getpixel((round(x), round(y))))

    first = [color(0.25, value) for value in (5, 35, 70, 90)]
    assert first == [SHARED, COLORS["gamma strong"], COLORS["gamma weak"], "#ffffff"]
    assert [color(0.75, value) for value in (5, 35, 70)] == [COLORS["gamma strong"]] * 2 + ["#ffffff"]


@pytest.mark.parametrize("side", [83, 89, 103, 115])
def test_every_side_of_a_grid_is_counted_with_its_own_tokens(side):
    """Sides at which a rate made from a number of tokens does not give that number back."""
    tokens, depth, width = side * side, 3, 64
    gamma = 1 - (tokens - 1) / tokens  # one token less
    spec = ModelSpec(
        "dit", DiTConfig(2 * side, 2, 4, width, depth + 2, 2, num_classes=9), Flow(), Sparsity((Route(1, 3),))
    )
    count = counter(spec)
    skipped = tokens - keep_count(tokens, gamma)
    assert count((Branch(),)) - count((Branch(gamma),)) == skipped * depth * 12 * width**2


def test_three_branches_of_two_inputs_in_one_pass():
    """What SG's pair shares, and the null branch beside it on its own. The conditioning of routed layers comes on top:
    it runs once per segment where inputs differ."""
    count, schedule = counter(SMALL), constant(0, 0.75, 2, "SG beside CFG")
    pair, null = count((Branch(0, 0, "c"), Branch(0.75, 1, "c"))), count((Branch(),))
    assert step_cost(SMALL, schedule, 1, cfg=4.0).total == pytest.approx(pair + null, rel=1e-3)
    assert step_cost(SMALL, schedule, 1).total == pair
    assert step_cost(SMALL, schedule, 1, cfg=4.0).weak == count((Branch(0.75),)) + null


def test_tokens_that_stay_and_factors_of_routes():
    """Where a mask keeps more than a rate, and each route at its own rate: as counted at the rates that come of it."""
    one = ModelSpec("dit", SMALL.config, Flow(), Sparsity((Route(1, 3),)))
    assert counter(one, stay=32)((Branch(0.75),)) == counter(one)((Branch(0.5),))
    assert counter(one, stay=32)((Branch(0.25),)) == counter(one)((Branch(0.25),))
    two = Sparsity((Route(1, 1, factor=0.5), Route(2, -2)))
    halves = [
        counter(ModelSpec("dit", SMALL.config, Flow(), Sparsity((route,))))((Branch(gamma),))
        for route, gamma in ((Route(1, 1), 0.25), (Route(2, -2), 0.5))
    ]
    both = counter(ModelSpec("dit", SMALL.config, Flow(), two))((Branch(0.5),))
    assert both == sum(halves) - counter(SMALL)((Branch(),))
    swapped = ModelSpec("dit", SMALL.config, Flow(), Sparsity(two.routes[::-1]))
    assert counter(swapped)((Branch(0.5),)) == both


@pytest.mark.parametrize(
    "spec", [SMALL, SPRINT, SRDIT, MICRODIT, MDT, NITRO_DIT, NITRO_MMDIT], ids=lambda spec: spec.architecture
)
def test_costs_are_the_same_in_inference_mode(spec):
    """As ComfyUI runs everything: operations reach a counter there before they fall into those that have a count."""
    found = []
    for mode in (torch.no_grad, torch.inference_mode):
        _counted.cache_clear()
        _on_shapes.cache_clear()
        with mode():
            found.append(counter(spec, attention=True)((Branch(0.5),)))
    assert found[0] == found[1] > 0


def test_rates_that_keep_as_many_tokens_are_counted_once():
    count = counter(SMALL)
    before = _counted.cache_info().misses
    assert len({count((Branch(gamma, 0, "c"), Branch(0.75, 1, "c"))) for gamma in (0.29, 0.291, 0.292)}) == 1
    assert _counted.cache_info().misses <= before + 1
    assert count((Branch(0.001),)) == count((Branch(),))  # of 64 tokens all are kept


def test_a_weaker_network_of_another_size_costs_what_it_costs():
    weaker = replace(SMALL, config=replace(SMALL.config, width=32))
    schedule = constant(0, 0, 2, "AG")
    cost = step_cost(SMALL, schedule, 2, auxiliary=weaker)
    assert cost.weak == step_cost(weaker, schedule, 2).strong < cost.strong
    assert cost.total == cost.strong + cost.weak and step_cost(SMALL, schedule, 2).weak == cost.strong
