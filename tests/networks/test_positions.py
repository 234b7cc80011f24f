"""Tables of positions are made once for many evaluations, and the same as ever; no evaluation uploads anything."""

from dataclasses import replace

import pytest
import torch
from formula import fill
from microdit_fixture import PROMPT
from microdit_fixture import TINY as MICRODIT
from nitro_fixture import DIT, MMDIT, PROMPTS
from torch.utils._python_dispatch import TorchDispatchMode

from sparse_model.networks import positions
from sparse_model.networks.dit import DiT, DiTConfig
from sparse_model.networks.maskdit import MaskDiT, MaskDiTConfig
from sparse_model.networks.microdit import MicroDiT
from sparse_model.networks.nitro_dit import NitroDiT
from sparse_model.networks.nitro_mmdit import NitroMMDiT
from sparse_model.networks.positions import rotary_positions, sincos_like, sincos_positions
from sparse_model.networks.srdit import SRDiT, SRDiTConfig
from sparse_model.networks.xut import image_places

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
    positions._sincos_on.cache_clear()
    monkeypatch.setattr(positions, "sincos_positions", lambda *sizes: made.append(sizes) or sincos_positions(*sizes))
    yield made
    positions._sincos_on.cache_clear()


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


@pytest.mark.parametrize(("table", "sizes"), [(rotary_positions, (4, 6, 8)), (image_places, (8, 12, 2))])
def test_other_tables_are_made_once_too(table, sizes):
    device = torch.device("cpu")
    assert table(*sizes, device) is table(*sizes, device)
    assert torch.equal(table(*sizes, device), table.__wrapped__(*sizes, device))
    assert table(*sizes, torch.device("meta")).is_meta


class Uploads(TorchDispatchMode):
    """Counts tensors that are made of Python's numbers, which on a GPU makes a step wait."""

    count = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        self.count += operation is torch.ops.aten.lift_fresh.default
        return operation(*args, **(kwargs or {}))


@pytest.mark.parametrize("family", FAMILIES)
def test_an_evaluation_uploads_no_numbers(family):
    network, y, _ = FAMILIES[family]
    x = torch.zeros(2, network.config.in_channels, 12, 8)
    network(x, torch.tensor([0.2, 0.7]), y)
    times = torch.tensor([0.2, 0.7])
    with Uploads() as uploads:
        network(x, times, y)
    assert uploads.count == 0
