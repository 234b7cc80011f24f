"""Whether a block's tokens may change places, and what is asked about that."""

import pytest
import torch
from hostless import hostless
from torch import Tensor, nn

from sparse_model.method.branches import Branch, Evaluation
from sparse_model.method.sparsity import Route, Sparsity
from sparse_model.method.tokens import subsets

block, families, family, places, probe, routing = (
    hostless(f"nodes.host.routes.{name}") for name in ("block", "families", "family", "places", "probe", "routing")
)

TOKENS, TEXT = 40, 3
FAMILY = family.Family(
    "Test", ("Network",), (family.Stage("blocks", "x", joint=True),), patch=lambda network: 1, indexed={"table": (1,)}
)


class Block(nn.Module):
    """Attention of text and image tokens with a table, and what another node has put into it."""

    def __init__(self, change=lambda x: x):
        super().__init__()
        self.change, self.runs = change, []

    def forward(self, x: Tensor, table: Tensor) -> Tensor:
        self.runs.append(tuple(x.shape[:2]))
        keys = x + table
        return x + self.change((keys @ keys.transpose(1, 2)).softmax(-1) @ x)


def run(change=lambda x: x, dtype=torch.float32, asked=("somebody's patch",)) -> Block:
    """Two branches of two rows each through a routed block, at gammas 0.25 and 0.75."""
    network = nn.Module()
    network.blocks = nn.ModuleList([Block(change)])
    branches = tuple(Branch(gamma, index, "one") for index, gamma in enumerate((0.25, 0.75)))
    call = routing.Call(
        network, FAMILY, Evaluation(branches, subsets(3)), 4, (TOKENS,), {}, torch.device("cpu"),
        probe=probe.Probe(asked) if asked else None,
    )  # fmt: skip
    placed = families.placed(network, FAMILY, Sparsity((Route(0, 0),)))
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, TEXT + TOKENS, 8, generator=generator).to(dtype)
    table = torch.randn(1, TEXT + TOKENS, 8, generator=generator).to(dtype)
    with block.installed([block.RoutedBlock(network.blocks[0], *placed[0][1:])], call):
        network.blocks[0](x, table)
    return network.blocks[0]


def ramp(x: Tensor) -> Tensor:
    return x * torch.linspace(0.5, 1.5, x.shape[1]).view(1, -1, 1).to(x)


def one_corner(x: Tensor) -> Tensor:
    return torch.cat([x[:, : TEXT + 2] * 3, x[:, TEXT + 2 :]], dim=1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("change", [ramp, one_corner])
def test_a_patch_that_goes_by_the_order_is_named(change, dtype):
    with pytest.raises(ValueError, match=r"^somebody's patch cannot work inside a block that drops tokens: its result"):
        run(change, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("change", [lambda x: x, torch.tanh, lambda x: x - x.mean(1, keepdim=True)])
def test_what_treats_tokens_alike_passes(change, dtype):
    """Also where text stands in front of the image, whose place is its own."""
    assert run(change, dtype).runs == [(2, TEXT + 30), (1, TEXT + 10), (2, TEXT + 10)]


def test_nobody_is_asked_without_a_reason():
    assert run(ramp, asked=()).runs == [(2, TEXT + 30), (2, TEXT + 10)]


def test_who_is_asked_about():
    inside, between = object(), object()
    options = {
        "patches": {"attn1_patch": [inside], "double_block": [between], "post_input": [between]},
        "patches_replace": {"dit": {("double_block", 1): between}, "attn1": {("middle", 0): inside}},
        "optimized_attention_override": inside,
    }
    assert probe.inside_blocks(options) == [inside] * 3
    assert probe.inside_blocks({}) == []
    names = ["diffusion_model.blocks.1.mlp", "diffusion_model.blocks.1", "diffusion_model.blocks.10", "model_sampling"]
    assert probe.objects_inside(names, ["blocks.1", "blocks.2"]) == names[:2]


def test_kept_tokens_go_to_their_places_and_back():
    kept = torch.tensor([[4, 0, 2], [1, 2, 3]])
    spread = places.Places(kept, 5).spread(torch.arange(6.0).view(2, 3, 1))
    assert spread.squeeze(-1).tolist() == [[1, 0, 2, 0, 0], [0, 3, 4, 5, 0]]
    assert places.Places(kept, 5).gathered(spread).flatten().tolist() == [0, 1, 2, 3, 4, 5]


def test_a_part_by_place_is_as_before_afterwards():
    inner = nn.Module()
    inner.part = nn.Linear(2, 2)
    inner.part.forward = own = lambda x, scale: x * scale
    here = places.Places(torch.tensor([[1, 3]]), 4)
    with places.over_all_places(inner, ("part",), here):
        inner.part.forward(torch.ones(1, 2, 2), scale=2.0)
        found = inner.part(torch.ones(1, 2, 2), torch.arange(4.0).view(1, 4, 1))
    assert found[..., 0].tolist() == [[1, 3]]
    assert inner.part.__dict__["forward"] is own
