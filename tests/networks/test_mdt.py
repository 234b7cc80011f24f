"""MDTv2 against outputs of the authors' code: dense, and with its side-interpolater.

fixtures/mdt.npz was made once with sail-sg/MDT: its MDTv2 of width 48, 4 heads, 2 + 2 layers in the encoder and 2 in
the decoder, for a latent of 4 x 8 x 8, weights by `formula`. `dense` has the labels 1 and 3, `null` none, `masked_R`
the labels and a ratio of R, with the kept tokens `kept_R`.
"""

import numpy as np
import pytest
import torch
from formula import FIXTURES, Chosen, fill, formula, relative_error

from sparse_model.method.branches import Branch, Evaluation
from sparse_model.method.sparsity import Route, Sparsity
from sparse_model.method.tokens import subsets
from sparse_model.networks.mdt import MDT, MDTConfig, cells

TINY = MDTConfig(input_size=8, width=48, depth=3, heads=4, num_classes=5, half=2)
X, T, Y = 4 * formula("x", (2, 4, 8, 8)), torch.tensor([300.0, 900.0]), torch.eye(5)[[1, 3]]
MASKED, ROUTED = Sparsity(mask=0.3), Sparsity((Route(0, 1),))


def make(sparsity=MASKED):
    return fill(MDT(TINY, sparsity), {})


@pytest.fixture(scope="module")
def expected():
    with np.load(FIXTURES / "mdt.npz") as file:
        return {name: torch.from_numpy(file[name]) for name in file}


def test_dense_output_is_the_authors(expected):
    network = make()
    assert relative_error(network(X, T, Y), expected["dense"]) < 1e-5
    assert relative_error(network(X, T, 0 * Y), expected["null"]) < 1e-5
    assert relative_error(expected["null"], expected["dense"]) > 1e-2


@pytest.mark.parametrize("ratio", [0.3, 0.75])
def test_masked_output_is_the_authors(expected, ratio):
    """Tokens that the encoder did not see are interpolated, and predicted like the others."""
    evaluation = Evaluation((Branch(ratio),), Chosen(expected[f"kept_{ratio:g}"]))
    output = make()(X, T, Y, evaluation)
    assert relative_error(output, expected[f"masked_{ratio:g}"]) < 1e-5
    assert relative_error(output, expected["dense"]) > 1e-2


@pytest.mark.parametrize(("sparsity", "gamma", "tokens"), [
    (MASKED, 0.0, [16, 16, 16]), (MASKED, 0.75, [4, 16, 16]), (MASKED, 1.0, [16, 16]), (ROUTED, 0.75, [4, 4, 16]),
])  # fmt: skip
def test_only_kept_tokens_pass_the_encoder(sparsity, gamma, tokens):
    network, seen = make(sparsity), []
    for layer in (network.en_inblocks[0], *network.de_blocks):
        layer.register_forward_pre_hook(lambda _, args, kwargs: seen.append(args[0].shape[1]), with_kwargs=True)
    network(X, T, Y, Evaluation((Branch(gamma),)))
    assert seen == tokens


@pytest.mark.parametrize("sparsity", [MASKED, ROUTED], ids=["mask", "route"])
@pytest.mark.parametrize("shared", [True, False], ids=["SG", "CFG + SG"])
@pytest.mark.parametrize("batch", [1, 2])
def test_branches_in_one_pass(sparsity, shared, batch):
    network, seed = make(sparsity), subsets(3, 7)
    x, t, y = X[:batch], T[:batch], Y[:batch]
    other = y if shared else 0 * y
    branches = Branch(0.0, 0, "a"), Branch(0.75, 1, "a" if shared else "b")
    output = network(torch.cat([x, x]), torch.cat([t, t]), torch.cat([y, other]), Evaluation(branches, seed))
    for branch, label, part in zip(branches, (y, other), output.chunk(2), strict=True):
        alone = network(x, t, label, Evaluation((branch,), seed))
        torch.testing.assert_close(part, alone, rtol=1e-5, atol=1e-5)


def test_other_sizes_and_aspects():
    """The learnt places are stretched; at the trained size they are the file's."""
    network = make()
    for height, width in ((16, 16), (4, 12)):
        x = formula("other", (2, 4, height, width))
        assert network(x, T, Y, Evaluation((Branch(0.5),))).shape == x.shape
    table = network.positions(network.pos_embed, 8, 4)
    assert table.shape == (1, 32, 48)
    torch.testing.assert_close(table.unflatten(1, (8, 4)).mean(), network.pos_embed.mean(), rtol=0, atol=0.05)
    assert cells(8, 4, TINY.grid, torch.device("cpu")).unique().numel() == 16
