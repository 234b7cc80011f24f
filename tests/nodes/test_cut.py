"""What a routed block is called with: data per token is cut along, data per row by rows, and nothing by accident."""

import pytest
import torch
from hostless import hostless
from torch import Tensor, nn

from sparse_model.method.branches import Branch, Evaluation
from sparse_model.method.sparsity import Route, Sparsity
from sparse_model.method.tokens import subsets

block, cut, families, family, routing = (
    hostless(f"nodes.host.routes.{name}") for name in ("block", "cut", "families", "family", "routing")
)

TOKENS, ROWS = 8, 4
FAMILY = family.Family(
    "Test", ("Network",), (family.Stage("blocks", "x"),), patch=lambda network: 1, indexed={"mask": (-2, -1)}
)


class Block(nn.Module):
    """Attention with equal queries and keys, plus whatever else it is given; it remembers that."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, x: Tensor, mask: Tensor | None = None, table: Tensor | None = None, transformer_options=None):
        self.seen.append((x, mask, table, transformer_options))
        logits = x @ x.transpose(1, 2)
        return x + (logits if mask is None else logits + mask).softmax(-1) @ x


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([Block(), Block()])

    def forward(self, x: Tensor, **given: object) -> Tensor:
        for inner in self.blocks:
            x = inner(x, **given)
        return x


def routed(x: Tensor, gammas=(0.25, 0.75), **given: object) -> tuple[Tensor, Network]:
    """Two branches of two rows each through a route over both blocks."""
    network = Network()
    branches = tuple(Branch(gamma, index, "one") for index, gamma in enumerate(gammas))
    call = routing.Call(network, FAMILY, Evaluation(branches, subsets(3)), ROWS, (TOKENS,), {}, torch.device("cpu"))
    placed = families.placed(network, FAMILY, Sparsity((Route(0, 1),)))
    blocks = [block.RoutedBlock(network.blocks[i], *rest) for i, (_, *rest) in enumerate(placed)]
    with block.installed(blocks, call):
        return network(x, **given), network


def slow(x: Tensor, mask: Tensor) -> Tensor:
    """The same by rows, one after the other, the mask [rows, T, T] written out."""
    rows = []
    for row in range(ROWS):
        kept = subsets(3).draw(row // 2, 2, TOKENS, (0.25, 0.75)[row // 2])[row % 2]
        inside = x[row : row + 1, kept]
        for inner in Network().blocks:
            inside = inner(inside, mask[row][kept][:, kept])
        rows.append(x[row : row + 1].index_copy(1, kept, inside))
    return torch.cat(rows)


@pytest.mark.parametrize("shape", [(TOKENS, TOKENS), (1, TOKENS, TOKENS), (ROWS, TOKENS, TOKENS)])
def test_a_mask_is_gathered_along_queries_and_keys(shape):
    """With or without rows; that its length is a multiple of the rows is no reason to cut it by them."""
    x, mask = torch.randn(ROWS, TOKENS, 5), torch.randn(shape)
    found, _ = routed(x, mask=mask)
    torch.testing.assert_close(found, slow(x, mask.expand(ROWS, -1, -1)))


@pytest.mark.parametrize("length", [TOKENS, 3 * ROWS])
def test_a_table_is_not_cut_because_the_rows_divide_its_length(length):
    table = torch.randn(length, 5)
    _, network = routed(torch.randn(ROWS, TOKENS, 5), table=table)
    assert all(seen is table for _, _, seen, _ in network.blocks[0].seen)


def test_a_table_with_an_entry_for_every_row_is_cut():
    _, network = routed(torch.randn(ROWS, TOKENS, 5), table=torch.arange(ROWS))
    assert [seen.tolist() for _, _, seen, _ in network.blocks[0].seen] == [[0, 1], [2, 3]]


@pytest.mark.parametrize("rows", [1, 2, ROWS])
def test_data_of_a_patch_follows_the_tokens(rows):
    """One for all rows, one for each sample of a branch, or one for each row."""
    patch, data = object(), torch.randn(rows, TOKENS, 2)
    options = {"cond_or_uncond": [0, 1], "uuids": ["a", "a"], "model_patch_data": {patch: data}}
    _, network = routed(torch.randn(ROWS, TOKENS, 5), transformer_options=options)
    full = data.repeat(ROWS // rows, 1, 1)
    for branch, (x, *_, seen) in enumerate(network.blocks[0].seen):
        kept = subsets(3).draw(branch, 2, TOKENS, (0.25, 0.75)[branch])
        expected = torch.stack([full[2 * branch + row, kept[row]] for row in range(2)])
        assert x.shape[1] == kept.shape[1]
        assert torch.equal(seen["model_patch_data"][patch].expand_as(expected), expected)
        assert seen["cond_or_uncond"] == [branch]


def test_patches_see_the_labels_of_their_rows():
    """Also where a node has made four chunks of the host's two."""
    branches = tuple(Branch(gamma, index, "one") for index, gamma in ((0, 0.25), (1, 0.75), (0, 0.25), (1, 0.75)))
    network, options = Network(), {"cond_or_uncond": [0, 1], "uuids": ["a", "b"]}
    call = routing.Call(
        network, FAMILY, Evaluation(branches, subsets(3)), ROWS, (TOKENS,), {}, torch.device("cpu"), (0, 1, 0, 1)
    )
    with block.installed([block.RoutedBlock(network.blocks[0], FAMILY.stages[0], 0, True)], call):
        network.blocks[0](torch.randn(ROWS, TOKENS, 5), transformer_options=options)
    assert [seen["cond_or_uncond"] for *_, seen in network.blocks[0].seen] == [[0], [1], [0], [1]]
    assert [seen["uuids"] for *_, seen in network.blocks[0].seen] == [["a"], ["b"], ["a"], ["b"]]


def test_a_dense_branch_keeps_the_grid_and_a_sparse_one_is_told():
    options = {"cond_or_uncond": [0, 1], "uuids": ["a", "a"], "grid_sizes": (1, 2, 4)}
    _, network = routed(torch.randn(ROWS, TOKENS, 5), (0.0, 0.75), transformer_options=options)
    dense, sparse = (seen["grid_sizes"] for *_, seen in network.blocks[0].seen)
    assert dense == (1, 2, 4)
    for read in (tuple, len, lambda grid: grid[0]):
        with pytest.raises(ValueError, match="grid_sizes, the frames, rows and columns"):
            read(sparse)


@pytest.mark.parametrize("kind", ["OutOfMemoryError", "AcceleratorError", "RuntimeError"])
def test_want_of_memory_is_not_a_patch_that_cannot_work(kind):
    """The host hears of it as of any other: torch's own class, CUDA's, and Metal's, which has none."""
    problem = getattr(torch, kind, RuntimeError)("out of memory")

    def patch():
        raise problem

    with pytest.raises(type(problem)) as raised:
        cut.named(patch)()
    assert raised.value is problem


def test_a_patch_that_fails_on_kept_tokens_is_named():
    def patch():
        raise RuntimeError("shapes differ")

    with pytest.raises(ValueError, match=r"patch cannot work inside a block that drops tokens \(shapes differ\)"):
        cut.named(patch)()


def test_a_block_is_as_before_behind_a_call():
    network = Network()
    network.blocks[1].forward = own = lambda x: x
    with block.installed([block.RoutedBlock(inner, FAMILY.stages[0], 0, False) for inner in network.blocks], None):
        assert all(isinstance(inner.forward, block.RoutedBlock) for inner in network.blocks)
    assert "forward" not in network.blocks[0].__dict__
    assert network.blocks[1].__dict__["forward"] is own
