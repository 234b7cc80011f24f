"""Sine-cosine tables of other sizes than a network's own: made once for many evaluations, and the same as ever."""

from dataclasses import replace

import pytest
import torch
from formula import fill
from microdit_fixture import PROMPT
from microdit_fixture import TINY as MICRODIT
from nitro_fixture import DIT, MMDIT, PROMPTS

from sparse_model.networks import layers
from sparse_model.networks.dit import DiT, DiTConfig
from sparse_model.networks.layers import sincos_like, sincos_positions
from sparse_model.networks.maskdit import MaskDiT, MaskDiTConfig
from sparse_model.networks.microdit import MicroDiT
from sparse_model.networks.nitro_dit import NitroDiT
from sparse_model.networks.nitro_mmdit import NitroMMDiT
from sparse_model.networks.srdit import SRDiT, SRDiTConfig

SIZES = {"input_size": 8, "width": 48, "depth": 2, "heads": 4, "num_classes": 2}
CLASSES = torch.eye(2)
FAMILIES = {  # a network, its condition, and the tables of one evaluation
    "dit": (DiT(DiTConfig(**SIZES)), CLASSES, 1),
    "maskdit": (
        MaskDiT(MaskDiTConfig(**SIZES, decoder_width=32, decoder_depth=1, decoder_heads=2)), CLASSES, 2,
    ),
    "microdit": (MicroDiT(MICRODIT), PROMPT, 1),
    "nitro-dit": (NitroDiT(replace(DIT, depth=4)), PROMPTS, 1),
    "nitro-mmdit": (NitroMMDiT(replace(MMDIT, depth=4)), PROMPTS, 1),
    "srdit": (SRDiT(SRDiTConfig(**SIZES, patch_size=2, in_channels=6, class_width=40, class_channels=2)), CLASSES, 1),
}  # fmt: skip


@pytest.fixture
def made(monkeypatch):
    """The tables that are made, by their arguments, from none at all."""
    made = []
    layers._sincos_on.cache_clear()
    monkeypatch.setattr(layers, "sincos_positions", lambda *sizes: made.append(sizes) or sincos_positions(*sizes))
    yield made
    layers._sincos_on.cache_clear()


@pytest.mark.parametrize("family", FAMILIES)
def test_evaluations_of_one_size_make_their_tables_once(made, family):
    network, y, tables = FAMILIES[family]
    network = fill(network, {})
    x = torch.randn(2, network.config.in_channels, 12, 8, generator=torch.Generator().manual_seed(0))
    first, second = (network(x, torch.tensor([0.2, 0.7]), y) for _ in range(2))
    assert len(made) == tables and torch.equal(first, second)
    network(x[..., :10, :], torch.tensor([0.2, 0.7]), y)
    assert len(made) == 2 * tables


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_table_that_is_kept_is_the_one_that_would_be_made(dtype):
    x = torch.zeros(1, dtype=dtype)
    for sizes in ((48, 6, 4, 4), (48, 4, 6, 4), (48, 6, 4, 8), (32, 6, 4, 4), (48, 6, 4, 4)):
        found = sincos_like(x, *sizes)
        assert found.dtype == dtype and torch.equal(found, sincos_positions(*sizes).to(dtype))
    assert sincos_like(x.to("meta"), 48, 6, 4, 4).device.type == "meta"


def test_a_table_made_in_inference_trains_afterwards(made):
    """As a leaf that autograd saves for the gradient of a product."""
    with torch.inference_mode():
        sincos_like(torch.zeros(1), 48, 6, 4, 4)
    weight = torch.ones(48, requires_grad=True)
    (weight * sincos_like(torch.zeros(1), 48, 6, 4, 4)).sum().backward()
    assert len(made) == 1 and weight.grad.isfinite().all()
