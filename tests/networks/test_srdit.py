"""SR-DiT against outputs of the authors' code, and its class token.

fixtures/srdit.npz was made once with SwayStar123/SpeedrunDiT: its SiT of width 48, 4 heads and 2 + 3 + 2 layers for a
5 x 4 x 4 latent, a class token of 40 numbers and 5 classes, weights by `formula`. Outputs are packed as the network
takes its input: the latent, then the class token and 8 zeros in three channels. `dense` has the classes 1 and 3, `null`
no class, `pdg` neither a class nor the middle, `masked` the classes with the kept tokens `index` and the class token.
`trajectory` is where 5 Euler steps along its velocity end, at its own noise levels of an INVAE latent for 256 pixels,
under its Path-Drop Guidance at scale 2.5 below 0.85, of 1,000 classes 207, from noise of seed 5. `times_16` and
`times_32` are five even steps under its time shift, for 256 and 512 pixels.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from formula import FIXTURES, Chosen, fill, formula, relative_error

from sparse_model.checkpoints.clues import Clues
from sparse_model.checkpoints.families import srdit
from sparse_model.method.branches import Branch, Evaluation
from sparse_model.method.sampling import Denoiser, sample
from sparse_model.method.sparsity import Route, Sparsity
from sparse_model.method.tokens import subsets
from sparse_model.networks.layers import TORCH
from sparse_model.networks.srdit import SRDiT, SRDiTConfig

TINY = SRDiTConfig(4, 1, 8, 48, 3, 4, num_classes=5, class_width=40)
X, T, Y = 4 * formula("x", (2, 8, 4, 4)), torch.tensor([0.3, 0.9]), torch.eye(5)[[1, 3]]


def published(size=16):
    """The spec of the published file for 256 or 512 pixels."""
    network = SRDiT(SRDiTConfig.named("B/1", input_size=size), backend=replace(TORCH, device="meta"))
    return srdit.recognise(Clues({key: tuple(value.shape) for key, value in network.state_dict().items()}))


@pytest.fixture(scope="module")
def expected():
    with np.load(FIXTURES / "srdit.npz") as file:
        return {name: torch.from_numpy(file[name]) for name in file}


@pytest.fixture(scope="module")
def network(expected):
    return fill(SRDiT(TINY, Sparsity(mask=0.75)), {"pos_embed": expected["pos_embed"]})


def test_dense_output_is_the_authors(network, expected):
    assert relative_error(network(X, T, Y), expected["dense"]) < 1e-5
    assert relative_error(network(X, T, 0 * Y), expected["null"]) < 1e-5


def test_masked_output_is_the_authors(network, expected):
    evaluation = Evaluation((Branch(0.75),), Chosen(expected["index"]))
    assert relative_error(network(X, T, Y, evaluation), expected["masked"]) < 1e-5


def test_path_drop_guidance_is_the_authors(network, expected):
    """Both branches in one batch, as the published settings evaluate them."""
    now = published().schedule.at(0.5)
    evaluation = Evaluation((Branch(now.gamma_strong, 0), Branch(now.gamma_weak, 1)), subsets(0))
    output = network(X.repeat(2, 1, 1, 1), T.repeat(2), torch.cat([Y, 0 * Y]), evaluation)
    assert relative_error(output[:2], expected["dense"]) < 1e-5
    assert relative_error(output[2:], expected["pdg"]) < 1e-5


@pytest.mark.parametrize("size", [16, 32])
def test_noise_levels_are_the_authors(expected, size):
    torch.testing.assert_close(
        published(size).prediction.sigmas(5).double(), expected[f"times_{size}"], rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("size", [16, 32])
def test_guidance_begins_where_the_authors_begins(size):
    """Below noise level 0.85, as a share of the way that depends on the time shift."""
    spec = published(size)
    for step, sigma in enumerate(spec.prediction.sigmas(200).tolist()):
        assert (spec.schedule.at(step / 200).omega == 2.5) == (sigma <= 0.85)


def test_sampling_ends_where_the_authors_ends(expected):
    network = fill(SRDiT(replace(TINY, num_classes=1000), Sparsity(mask=0.75)), {"pos_embed": expected["pos_embed"]})
    spec, label = published(), torch.eye(1000)[207:208]
    found = sample(Denoiser(network, spec.prediction), label, spec.schedule, shape=(8, 4, 4), steps=5, seed=5)
    for part, theirs in zip(network.parts(found), network.parts(expected["trajectory"]), strict=True):
        assert relative_error(part, theirs) < 1e-5


def lengths_seen(network, evaluation):
    lengths = []
    hooks = [
        block.register_forward_pre_hook(lambda _, inputs: lengths.append(inputs[0].shape[1]))
        for block in network.blocks[1:]  # the first is not called as a module
    ]
    network(X, T, Y, evaluation)
    for hook in hooks:
        hook.remove()
    return lengths


@pytest.mark.parametrize(("gamma", "middle"), [(0.0, [17] * 3), (0.75, [5] * 3), (0.3, [13] * 3), (1.0, [])])
def test_only_the_middle_drops_tokens(network, gamma, middle):
    """And never the class token, unless it drops all."""
    assert lengths_seen(network, Evaluation((Branch(gamma),))) == [17, *middle, 17, 17]


def test_branches_in_one_batch_or_two_calls(network):
    strong, weak, seed = Branch(0.25, 0, "one"), Branch(0.75, 1, "one"), subsets(3, 7)
    twice = X.repeat(2, 1, 1, 1), T.repeat(2), Y.repeat(2, 1)
    apart = torch.cat([network(X, T, Y, Evaluation((branch,), seed)) for branch in (strong, weak)])
    for branches in ((strong, weak), (replace(strong, condition=None), replace(weak, condition=None))):
        torch.testing.assert_close(network(*twice, Evaluation(branches, seed)), apart, rtol=1e-5, atol=1e-5)


def test_one_picture_is_a_batch_of_one(network):
    evaluation = Evaluation((Branch(0.75),), subsets(4))
    torch.testing.assert_close(
        network(X[:1], T[:1], Y[:1], evaluation), network(X, T, Y, evaluation)[:1], rtol=1e-5, atol=1e-5
    )


def test_routes_instead_of_a_mask(network):
    routed = SRDiT(TINY, Sparsity((Route(1, 2),)))
    routed.load_state_dict(network.state_dict())
    assert lengths_seen(routed, Evaluation((Branch(0.5),))) == [17, 17, 9, 9, 17, 17]
    torch.testing.assert_close(routed(X, T, Y), network(X, T, Y))


def test_the_class_token_matters_and_the_rest_of_its_channels_does_not(network):
    token, rest = X.clone(), X.clone()
    token[:, -3:].view(2, -1)[:, 0] += 1
    rest[:, -3:].view(2, -1)[:, 40:] += 1
    plain = network(X, T, Y)
    assert not torch.allclose(network(token, T, Y)[:, :5], plain[:, :5], atol=1e-3)
    assert torch.equal(network(rest, T, Y), plain)
    assert (plain[:, -3:].flatten(1)[:, 40:] == 0).all()


def test_other_sizes_and_aspects(network):
    for height, width in ((8, 8), (3, 5)):
        x = formula("other", (2, 8, height, width))
        assert network(x, T, Y, Evaluation((Branch(0.5),))).shape == x.shape
    with pytest.raises(ValueError, match="latent of 4 x 3 is too small"):
        network(formula("other", (2, 8, 3, 4)), T, Y)
