"""SPRINT against outputs of the authors' code, and its middle that sees part of the tokens.

fixtures/sprint.npz was made once with snap-research/Sprint: its SiT of width 48, 4 heads and 1 + 3 + 2 layers for a
4 x 8 x 8 latent and 5 classes, RMS norms of queries and keys as in its published configurations, weights by `formula`.
`dense` has the classes 1 and 3, `null` no class, `masked` the classes with the kept tokens `index`, `pdg` is the weak
half of its Path-Drop Guidance (no class, no middle), and `gated` is `masked` with its SwiGLU layers. `structured` is
likewise with the tokens `structured_index` of its structured mask; of 8 x 12 tokens it keeps `quarter` and `half` when
it draws `chances` for every token of every cell, and prefers high ones. `trajectory` is
where its `sample_ode` ends after 5 steps of Path-Drop Guidance at scale 3, of 1,000 classes 207, from noise of seed 5.
"""

from dataclasses import replace
from unittest import mock

import numpy as np
import pytest
import torch
from formula import FIXTURES, Chosen, fill, formula, relative_error

from sparse_model.method.branches import Branch, Evaluation
from sparse_model.method.grid import Grid
from sparse_model.method.prediction import Flow
from sparse_model.method.sampling import Denoiser, sample
from sparse_model.method.schedule import PRESETS
from sparse_model.method.sparsity import Route, Sparsity
from sparse_model.method.tokens import subsets
from sparse_model.networks.positions import rotary_positions, rotate
from sparse_model.networks.sprint import Sprint, SprintConfig

TINY = SprintConfig(8, 2, 4, 48, 3, 4, num_classes=5, encoder_depth=1, decoder_depth=2)
X, T, Y = 4 * formula("x", (2, 4, 8, 8)), torch.tensor([0.3, 0.9]), torch.eye(5)[[1, 3]]


@pytest.fixture(scope="module")
def expected():
    with np.load(FIXTURES / "sprint.npz") as file:
        return {name: torch.from_numpy(file[name]) for name in file}


@pytest.fixture(scope="module")
def network():
    return fill(Sprint(TINY, Sparsity(mask=0.75)), {})


def test_dense_output_is_the_authors(network, expected):
    assert relative_error(network(X, T, Y), expected["dense"]) < 1e-5
    assert relative_error(network(X, T, 0 * Y), expected["null"]) < 1e-5


def test_masked_output_is_the_authors(network, expected):
    evaluation = Evaluation((Branch(0.75),), Chosen(expected["index"]))
    assert relative_error(network(X, T, Y, evaluation), expected["masked"]) < 1e-5
    gated = fill(Sprint(replace(TINY, swiglu=True), Sparsity(mask=0.75)), {})
    assert relative_error(gated(X, T, Y, evaluation), expected["gated"]) < 1e-5


def test_structured_output_is_the_authors(network, expected):
    evaluation = Evaluation((Branch(0.75),), Chosen(expected["structured_index"]))
    assert relative_error(network(X, T, Y, evaluation), expected["structured"]) < 1e-5


@pytest.mark.parametrize("part", ["quarter", "half"])
def test_a_structured_subset_is_the_authors(expected, part):
    """From the same random numbers, of which we prefer low ones; they decide all but the order of the cells."""
    grid, theirs = Grid((8, 12)), 1 - expected["chances"].flatten(1)
    chances = torch.cat([theirs, formula("cells", (2, grid.chances - theirs.shape[1])) + 0.5], dim=1)
    kept = grid.scores(chances).argsort(dim=1)[:, : expected[part].shape[1]]
    assert torch.equal(kept.sort(dim=1).values, expected[part].long())


@pytest.mark.parametrize("gamma", [0.75, 0.5])
def test_structured_branches_keep_as_many_of_every_cell(network, gamma):
    x = formula("wide", (2, 4, 8, 16))
    (kept,) = Evaluation((Branch(gamma),), subsets(3, selection="structured")).prepare(network, x).kept[0]
    cells = kept // 8 // 2 * 4 + kept % 8 // 2
    assert cells.sort(dim=1).values.tolist() == [[cell for cell in range(8) for _ in range(round(4 - 4 * gamma))]] * 2


def test_path_drop_guidance_is_the_authors(network, expected):
    """Both branches in one batch, as the preset PDG evaluates them."""
    now = PRESETS["PDG"].at(0.5)
    evaluation = Evaluation((Branch(now.gamma_strong, 0), Branch(now.gamma_weak, 1)), subsets(0))
    output = network(X.repeat(2, 1, 1, 1), T.repeat(2), torch.cat([Y, 0 * Y]), evaluation)
    assert relative_error(output[:2], expected["dense"]) < 1e-5
    assert relative_error(output[2:], expected["pdg"]) < 1e-5


def test_sampling_ends_where_the_authors_ends(expected):
    network = fill(Sprint(replace(TINY, num_classes=1000), Sparsity(mask=0.75)), {})
    label = torch.eye(1000)[207:208]
    found = sample(Denoiser(network, Flow()), label, PRESETS["PDG"], shape=(4, 8, 8), steps=5, seed=5)
    assert relative_error(found, expected["trajectory"]) < 1e-5


@pytest.mark.parametrize(("gamma", "middle"), [(0.0, [16] * 3), (0.75, [4] * 3), (0.3, [12] * 3), (1.0, [])])
def test_only_the_middle_drops_tokens(network, gamma, middle):
    seen = {"encoder": [], "middle": [], "decoder": []}
    hooks = [
        layer.register_forward_pre_hook(lambda _, inputs, part=part: seen[part].append(inputs[0].shape[1]))
        for part in seen
        for layer in getattr(network, f"{part}_blocks")
    ]
    network(X, T, Y, Evaluation((Branch(gamma),)))
    for hook in hooks:
        hook.remove()
    assert seen == {"encoder": [16], "middle": middle, "decoder": [16, 16]}


def test_branches_in_one_batch_or_two_calls(network):
    strong, weak, seed = Branch(0.25, 0), Branch(0.75, 1), subsets(3, 7)
    both = network(X.repeat(2, 1, 1, 1), T.repeat(2), Y.repeat(2, 1), Evaluation((strong, weak), seed))
    apart = [network(X, T, Y, Evaluation((branch,), seed)) for branch in (strong, weak)]
    torch.testing.assert_close(both, torch.cat(apart), rtol=1e-5, atol=1e-5)


def test_branches_of_one_input_share_the_encoder(network):
    rows = []
    hook = network.encoder_blocks[0].register_forward_pre_hook(lambda _, inputs: rows.append(len(inputs[0])))
    twice = X.repeat(2, 1, 1, 1), T.repeat(2), Y.repeat(2, 1)
    shared = network(*twice, Evaluation((Branch(0.25, 0, "one"), Branch(1.0, 1, "one")), subsets(3)))
    apart = network(*twice, Evaluation((Branch(0.25, 0), Branch(1.0, 1)), subsets(3)))
    hook.remove()
    assert rows == [2, 4]
    torch.testing.assert_close(shared, apart, rtol=1e-5, atol=1e-5)


def test_routes_instead_of_a_mask(network):
    routed = Sprint(TINY, Sparsity((Route(1, 2),)))
    routed.load_state_dict(network.state_dict())
    lengths = []
    for block in routed.middle_blocks:
        block.register_forward_pre_hook(lambda _, inputs: lengths.append(inputs[0].shape[1]))
    routed(X, T, Y, Evaluation((Branch(0.5),)))
    assert lengths == [16, 8, 8]
    torch.testing.assert_close(routed(X, T, Y), network(X, T, Y))


def test_other_sizes_and_aspects(network):
    for height, width in ((16, 16), (4, 12)):
        x = formula("other", (2, 4, height, width))
        assert network(x, T, Y, Evaluation((Branch(0.5),))).shape == x.shape


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_one_complex_product_turns_as_its_parts_do(dtype):
    """A compiler, and a device without complex numbers, gets the parts."""
    positions, x = rotary_positions(5, 6, 8), formula("x", (2, 30, 3, 8)).to(dtype)
    with mock.patch.object(torch.compiler, "is_compiling", lambda: True):
        parts = rotate(x, positions)
    product = rotate(x, positions)
    assert product.dtype == parts.dtype == dtype
    torch.testing.assert_close(product, parts)
    assert not torch.equal(product, x)


def test_attention_sees_how_far_tokens_are_apart():
    """The product of a turned query and a turned key depends on the offset of their rows and columns alone."""
    positions = rotary_positions(5, 6, 8)  # tokens of row r and column c are number 6 r + c
    q, k = (rotate(formula(name, (1, 1, 1, 8)).expand(1, 30, 1, 8), positions)[0, :, 0] for name in "qk")
    products = q @ k.T
    torch.testing.assert_close(products[6 * 1 + 1, 6 * 3 + 2], products[6 * 2 + 4, 6 * 4 + 5])
    assert not torch.isclose(products[6 * 1 + 1, 6 * 3 + 2], products[6 * 1 + 1, 6 * 2 + 3])
