"""Compiled blocks of every architecture stay within the graphs that torch.compile allows a function: past them it goes
on uncompiled."""

from collections import Counter

import pytest
import torch
from nitro_fixture import DIT, MMDIT

from benchmarks.correctness import SPECS
from benchmarks.timing import Step, compile_in_place, network_of
from sparse_model.checkpoints.families import ARCHITECTURES
from sparse_model.checkpoints.spec import ModelSpec
from sparse_model.conditions.text import TextSpec
from sparse_model.method.prediction import Flow
from sparse_model.method.schedule import constant
from sparse_model.method.sparsity import Route, Sparsity
from sparse_model.networks.mdt import MDTConfig

ALL = SPECS | {
    "mdt": ModelSpec(
        "mdt", MDTConfig(input_size=8, width=48, depth=3, heads=4, num_classes=10, half=2), Flow(), Sparsity(mask=0.5)
    ),
    "nitro-dit": ModelSpec("nitro-dit", DIT, Flow(), Sparsity(mask=0.5), text=TextSpec("", DIT.text_width, 8)),
    "nitro-mmdit": ModelSpec(
        "nitro-mmdit", MMDIT, Flow(), Sparsity((Route(1, 3),)), text=TextSpec("", MMDIT.text_width, 8)
    ),
}
RUN = constant(0, 0, 1, "CFG"), constant(0, 0, 1.5, "CFG"), constant(0.25, 0.75, 1.5), constant(0, 0.5, 3, "CFG + SG")
"""Steps without guidance, of CFG, and sparse ones of two and of one condition, all with the same network."""


def test_every_architecture_is_here():
    assert ALL.keys() == ARCHITECTURES.keys()


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_a_run_stays_within_the_graphs_of_a_function(name):
    graphs: Counter[str] = Counter()

    def count(graph, inputs):
        graphs[name] += 1
        return graph

    network = network_of(ALL[name], "cpu", torch.float32)
    with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True), torch.inference_mode():
        compile_in_place(network, "blocks", dynamic=False, backend=count)
        for schedule in RUN:
            step = Step(network, ALL[name], schedule, batch=2)
            step()
            found = graphs[name]
            step()
            assert graphs[name] == found  # other tokens of the same counts compile nothing
    torch._dynamo.reset()
    assert graphs[name] > 0
