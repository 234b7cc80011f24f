"""Token routes through Motif-Video, as diffusers writes it: double, single and decoder blocks in one numbering."""

import pytest
import torch
from diffusers import MotifVideoTransformer3DModel
from hostless import hostless
from torch import Tensor

from sparse_model.method.branches import Branch, Evaluation
from sparse_model.method.sparsity import Route, Sparsity
from sparse_model.method.tokens import subsets

routing, block, families = (hostless(f"nodes.host.routes.{name}") for name in ("routing", "block", "families"))

GRID = (3, 3, 4)
TOKENS, FRAME = 36, 12


@pytest.fixture(scope="module")
def network() -> MotifVideoTransformer3DModel:
    """Two double, two single and three decoder blocks with random weights."""
    made = MotifVideoTransformer3DModel(
        in_channels=33, num_attention_heads=2, attention_head_dim=12, num_layers=2, num_single_layers=5,
        num_decoder_layers=3, mlp_ratio=2.0, text_embed_dim=20, image_embed_dim=24, rope_axes_dim=(4, 4, 4),
        enable_text_cross_attention_dual=True, enable_text_cross_attention_single=True,
    ).eval()  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in made.parameters():
            value.copy_(0.3 * torch.randn(value.shape, generator=generator) + (value.ndim == 1))
    return made


def inputs(first_frame: bool = False) -> dict[str, Tensor]:
    """Two samples: latent, its condition, text of five tokens of which one is padding, an encoded picture."""
    generator = torch.Generator().manual_seed(1)
    shapes = {"latent": (2, 16, 3, 6, 8), "text": (2, 5, 20), "picture": (2, 4, 24)}
    made = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    beside = torch.zeros(2, 17, 3, 6, 8)
    beside[:, :, 0] = float(first_frame)
    return {**made, "beside": beside, "mask": torch.tensor([[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]])}


def call(network: MotifVideoTransformer3DModel, given: dict[str, Tensor]) -> Tensor:
    """The network's last layer, before patches become a latent again: [B, T, D]."""
    found = []
    hook = network.proj_out.register_forward_hook(lambda _, __, output: found.append(output))
    with torch.no_grad():
        network(
            torch.cat([given["latent"], given["beside"]], dim=1), torch.full((len(given["text"]),), 700), given["text"],
            given["mask"], given["picture"],
        )  # fmt: skip
    hook.remove()
    return found[0]


def routed(network: MotifVideoTransformer3DModel, given: dict[str, Tensor], route: tuple, gammas: tuple) -> Tensor:
    """Branches of both samples through routed blocks: [branches * 2, T, D]."""
    family = families.family_of(network)
    plan = Sparsity((Route(*route),))
    chunks = tuple(Branch(gamma, index, "one") for index, gamma in enumerate(gammas))
    evaluation = Evaluation(chunks, subsets(3))
    blocks = {path: inner for path, _, inner in families.numbered_blocks(network, family)}
    placed = [
        block.RoutedBlock(blocks[path], stage, number, last)
        for path, stage, number, last in families.placed(network, family, plan)
    ]
    batch = {name: torch.cat([value] * len(gammas)) for name, value in given.items()}
    rows = 2 * len(gammas)
    state = routing.Call(network, family, evaluation, rows, GRID, {"c_concat": batch["beside"]}, torch.device("cpu"))
    with block.installed(placed, state):
        return call(network, batch)


@torch.no_grad()
def slow(network: MotifVideoTransformer3DModel, given: dict[str, Tensor], route: range, kept: Tensor) -> Tensor:
    """One sample written out: tokens [K] are taken in front of every block of the route and put back behind it."""
    latent = torch.cat([given["latent"], given["beside"]], dim=1)
    table, condition = network.rope(latent), network.time_text_embed(torch.full((1,), 700))
    encoded = network.x_embedder(latent)
    decoded = encoded.clone()
    picture = network.image_embedder(given["picture"])
    text = torch.cat([picture, network.context_embedder(given["text"])], dim=1)
    seen = torch.cat([torch.ones(1, picture.shape[1]), given["mask"]], dim=1)
    blocks = [*network.transformer_blocks, *network.single_transformer_blocks]
    for number, block in enumerate(blocks):
        index = kept if number in route else torch.arange(TOKENS)
        if len(index) == 0:
            continue
        own = tuple(values[index] for values in table)
        mask = torch.cat([torch.ones(1, len(index)), seen], dim=1).bool()[:, None, None]
        if number < len(blocks) - network.num_decoder_layers:
            new, text = block(encoded[:, index], text, condition, mask, own, picture.shape[1])
        else:
            fresh, new = block(decoded[:, index], encoded[:, index], condition, None, own)
            decoded = decoded.index_copy(1, index, fresh)
        encoded = encoded.index_copy(1, index, new)
    return network.proj_out(network.norm_out(decoded, condition))


def test_the_written_out_network_is_the_network(network: MotifVideoTransformer3DModel) -> None:
    given = inputs()
    for row, expected in enumerate(call(network, given)):
        one = {name: value[row : row + 1] for name, value in given.items()}
        torch.testing.assert_close(slow(network, one, range(0), torch.arange(0))[0], expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("first_frame", [False, True], ids=["text to video", "image to video"])
@pytest.mark.parametrize(
    "route", [(0, 1), (1, 2), (1, 3), (4, 5), (2, 5), (1, -2)],
    ids=["double", "both", "to the last encoder", "decoder", "across", "2 to -2 of a small one"],
)  # fmt: skip
def test_every_branch_runs_on_its_own_tokens(
    network: MotifVideoTransformer3DModel, route: tuple[int, int], first_frame: bool
) -> None:
    given, gammas = inputs(first_frame), (0.25, 0.75, 1.0)
    found = routed(network, given, route, gammas)
    layers, start = Route(*route).layers(7), FRAME if first_frame else 0
    dense = call(network, given)
    for branch, gamma in enumerate(gammas):
        drawn = subsets(3).draw(branch, 2, TOKENS - start, gamma)
        assert drawn.shape[1] == (TOKENS - start) * (1 - gamma)
        for row in range(2):
            kept = torch.cat([torch.arange(start), drawn[row] + start])
            one = {name: value[row : row + 1] for name, value in given.items()}
            expected = slow(network, one, layers, kept if drawn.shape[1] else torch.arange(0))[0]
            torch.testing.assert_close(found[2 * branch + row], expected, rtol=2e-5, atol=2e-5)
            assert (expected - dense[row]).abs().max() > 0.05


def test_nothing_dropped_is_the_network(network: MotifVideoTransformer3DModel) -> None:
    given = inputs()
    assert torch.equal(routed(network, given, (1, -2), (0.0,)), call(network, given))


def test_the_default_route_ends_in_front_of_the_decoder() -> None:
    """12 double, 16 single and 8 decoder blocks: what encodes is 0 to 27."""
    family = families.BY_CLASS["MotifVideoTransformer3DModel"]
    assert family.route(36).layers(36) == range(2, 27)
