"""MaskDiT against outputs of the authors' code, and masking itself.

fixtures/maskdit.npz was made once with Anima-Lab/MaskDiT: its DiT of width 48, 3 layers and 4 heads for a 4 x 8 x 8
latent and 5 classes, decoder of width 32, 2 layers and 4 heads, weights by `formula`, wrapped in its EDMPrecond.
`dense` is the network in evaluation mode, `masked` in training mode with the kept tokens `index`, `edm` the wrapper.
"""

import numpy as np
import pytest
import torch
from formula import FIXTURES, Chosen, fill, formula, relative_error

from sparse_model.method.branches import Branch, Evaluation
from sparse_model.method.prediction import EDM
from sparse_model.method.sparsity import Route, Sparsity
from sparse_model.method.tokens import subsets
from sparse_model.networks.maskdit import MaskDiT, MaskDiTConfig
from sparse_model.networks.positions import sincos_positions

TINY = MaskDiTConfig(8, 2, 4, 48, 3, 4, decoder_width=32, decoder_depth=2, decoder_heads=4, num_classes=5)
X, T = 4 * formula("x", (2, 4, 8, 8)), torch.tensor([0.3, -0.7])
Y = torch.eye(5)[[1, 3]] * torch.tensor([[1.0], [0.0]])  # a class, and the null condition


@pytest.fixture(scope="module")
def expected():
    with np.load(FIXTURES / "maskdit.npz") as file:
        return {name: torch.from_numpy(file[name]) for name in file}


@pytest.fixture(scope="module")
def network():
    positions = {"pos_embed": sincos_positions(48, 4, 4, 4), "decoder_pos_embed": sincos_positions(32, 4, 4, 4)}
    return fill(MaskDiT(TINY, Sparsity(mask=0.5)), positions)


def test_dense_output_is_the_authors(network, expected):
    assert relative_error(network(X, T, Y), expected["dense"]) < 1e-5


def test_masked_output_is_the_authors(network, expected):
    evaluation = Evaluation((Branch(0.5),), Chosen(expected["index"]))
    assert relative_error(network(X, T, Y, evaluation), expected["masked"]) < 1e-5


def test_preconditioned_output_is_the_authors(network, expected):
    clean = EDM().denoise(network, X, torch.tensor([0.4, 3.0]), Y)
    assert relative_error(clean, expected["edm"]) < 1e-5


def lengths_seen(network, gamma):
    """The token counts at which each part of the network runs."""
    seen = {"encoder": [], "decoder": []}
    hooks = [
        layer.register_forward_pre_hook(lambda _, inputs, part=part: seen[part].append(inputs[0].shape[1]))
        for part, layers in (("encoder", network.blocks), ("decoder", network.decoder_blocks))
        for layer in layers
    ]
    output = network(X, T, Y, Evaluation((Branch(gamma),)))
    for hook in hooks:
        hook.remove()
    assert output.shape == X.shape
    return seen


@pytest.mark.parametrize(("gamma", "kept"), [(0.0, 16), (0.5, 8), (0.3, 12), (0.9, 2)])
def test_the_encoder_runs_on_kept_tokens_and_the_decoder_on_all(network, gamma, kept):
    assert lengths_seen(network, gamma) == {"encoder": [kept] * 3, "decoder": [16] * 2}


def test_gamma_1_skips_the_encoder(network):
    assert lengths_seen(network, 1.0) == {"encoder": [], "decoder": [16] * 2}


def test_gamma_0_is_dense(network):
    assert torch.equal(network(X, T, Y, Evaluation((Branch(0.0),), subsets(5))), network(X, T, Y))
    beside = network(X.repeat(2, 1, 1, 1), T.repeat(2), Y.repeat(2, 1), Evaluation((Branch(0.0), Branch(0.9, 1))))
    torch.testing.assert_close(beside[:2], network(X, T, Y))


def test_dropped_tokens_reach_the_decoder_as_the_mask_token(network):
    index = torch.tensor([[0, 3, 5], [1, 2, 15]])
    seen = []
    hook = network.decoder_blocks[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    network(X, T, Y, Evaluation((Branch(0.8),), Chosen(index)))
    hook.remove()
    (entering,) = seen
    fill_in = (network.mask_token + network.decoder_pos_embed)[0]
    dropped = torch.ones(2, 16, dtype=torch.bool).scatter(1, index, False)
    for sample in range(2):
        assert torch.equal(entering[sample][dropped[sample]], fill_in[dropped[sample]])
        assert not torch.isclose(entering[sample][~dropped[sample]], fill_in[~dropped[sample]]).all()


def test_dropped_pixels_cannot_change_the_output(network):
    evaluation = Evaluation((Branch(0.5),), Chosen(torch.arange(8).expand(2, 8)))  # the upper half
    changed = X.clone()
    changed[:, :, 4:] += 1
    assert torch.equal(network(X, T, Y, evaluation), network(changed, T, Y, evaluation))
    changed[:, :, 0] += 1
    assert not torch.allclose(network(X, T, Y, evaluation), network(changed, T, Y, evaluation))


def test_branches_in_one_batch_or_two_calls(network):
    strong, weak, seed = Branch(0.25, 0), Branch(0.5, 1), subsets(3, 7)
    both = network(X.repeat(2, 1, 1, 1), T.repeat(2), Y.repeat(2, 1), Evaluation((strong, weak), seed))
    apart = [network(X, T, Y, Evaluation((branch,), seed)) for branch in (strong, weak)]
    torch.testing.assert_close(both, torch.cat(apart), rtol=1e-5, atol=1e-5)


def test_routes_instead_of_a_mask(network):
    routed = MaskDiT(TINY, Sparsity((Route(1, 2),)))
    routed.load_state_dict(network.state_dict())
    lengths = []
    for block in routed.blocks:
        block.register_forward_pre_hook(lambda _, inputs: lengths.append(inputs[0].shape[1]))
    routed(X, T, Y, Evaluation((Branch(0.5),)))
    assert lengths == [16, 8, 8]
    torch.testing.assert_close(routed(X, T, Y), network(X, T, Y))


def test_other_sizes_and_aspects(network):
    for height, width in ((16, 16), (4, 12)):
        x = formula("other", (2, 4, height, width))
        assert network(x, T, Y, Evaluation((Branch(0.5),))).shape == x.shape
