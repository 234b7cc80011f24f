"""What is the same for all layers, or all evaluations of a run, is done once: at batch 1 a GPU waits for launches."""

from collections import Counter
from dataclasses import replace

import pytest
import torch
from nitro_fixture import MMDIT

from benchmarks.correctness import SPECS
from benchmarks.operations import Operations
from benchmarks.timing import Step, network_of
from sparse_model.checkpoints.spec import ModelSpec
from sparse_model.conditions.text import TextSpec
from sparse_model.method.prediction import Flow
from sparse_model.method.schedule import Schedule, constant
from sparse_model.method.sparsity import Route, Sparsity
from sparse_model.networks.mdt import MDTConfig

SG, TWO_PROMPTS = constant(0.25, 0.75, 1.5), constant(0.0, 0.5, 1.5, "CFG + SG")
ALL = SPECS | {
    "mdt": ModelSpec(
        "mdt", MDTConfig(8, width=32, depth=3, heads=2, num_classes=10, half=2), Flow(), Sparsity(mask=0.3)
    ),
    "nitro-mmdit": ModelSpec(
        "nitro-mmdit", MMDIT, Flow(), Sparsity((Route(1, 3),)), text=TextSpec("", MMDIT.text_width, 8)
    ),
}  # fmt: skip


def operations(spec: ModelSpec, schedule: Schedule = SG) -> Counter[str]:
    """Of a run's second step."""
    step = Step(network_of(spec, "cpu", torch.float32), spec, schedule, 1)
    with torch.inference_mode():
        step()
        return Operations.of(step)


def further_layer(spec: ModelSpec, schedule: Schedule = SG) -> Counter[str]:
    field = "levels" if hasattr(spec.config, "levels") else "depth"
    deeper = replace(spec.config, **{field: getattr(spec.config, field) + 1})
    return operations(replace(spec, config=deeper), schedule) - operations(spec, schedule)


@pytest.mark.parametrize("name", ["dit", "maskdit", "mdt", "nitro-mmdit", "prx", "sprint", "srdit"])
def test_a_condition_is_activated_for_all_layers_at_once(name):
    """Their MLPs have another activation."""
    assert further_layer(ALL[name])["silu"] == 0
    assert operations(ALL[name])["silu"] > 0


@pytest.mark.parametrize(("name", "most"), [
    ("dit", 1), ("maskdit", 1), ("sprint", 1), ("srdit", 1),  # 1 + scale
    ("trdit", 3),  # and a table, and what it adds of the text
    ("prx", 2), ("xut", 0), ("mdt", 2),
])  # fmt: skip
def test_a_further_layer_takes_few_sums(name, most):
    assert further_layer(ALL[name])["add"] <= most


def test_queries_and_keys_are_turned_together():
    assert further_layer(ALL["trdit"])["mul"] == 2  # and the gated MLP's


def test_modulation_of_two_prompts_is_spread_once_a_norm():
    """One level of XUT is an encoder's block and three of a decoder, the first of which crosses to the encoder."""
    assert further_layer(ALL["xut"], TWO_PROMPTS)["cat"] == 9 + 5 + 1  # norms, attentions, a crossing


@pytest.mark.parametrize("name", ["trdit", "prx", "maskdit", "mdt"])
def test_no_step_makes_numbers_of_tokens_anew(name):
    counts = operations(ALL[name])
    labels = name == "mdt"  # looks every label up by its number
    assert counts["arange"] == labels and counts["cartesian_prod"] == counts["pad"] - (name == "prx") == 0
