"""MicroDiT against outputs of the authors' code, and its deferred masking.

fixtures/microdit.npz was made once with SonyResearch/micro_diffusion: its DiT of width 64, heads of 8, a patch mixer of
width 48 and 2 layers, then 4 layers, 4 experts in every second layer but the last, for a 4 x 8 x 8 latent and prompts
of 6 tokens of width 24, weights by `formula`. `dense` has the prompt, `null` embeddings of 0, `masked` the prompt and
the kept tokens `index`, `edm` is its preconditioned prediction at the noise levels 0.4 and 3, and
`trajectory` where its sampler ends after 6 steps of CFG at scale 5 with the first prompt, from noise of seed 5.
"""

import numpy as np
import pytest
import torch
from formula import FIXTURES, Chosen, fill, formula, relative_error
from microdit_fixture import PROMPT, TINY

from sparse_model.conditions.text import Text
from sparse_model.method.branches import Branch, Evaluation
from sparse_model.method.prediction import EDM
from sparse_model.method.sparsity import Route, Sparsity
from sparse_model.method.tokens import subsets
from sparse_model.networks.microdit import MicroDiT
from sparse_model.networks.positions import sincos_positions

X, T = 4 * formula("x", (2, 4, 8, 8)), torch.tensor([0.3, -0.7])
NULL = Text(0 * PROMPT.embeddings, PROMPT.mask)


def twice(*values):
    """The same input for two branches."""
    return [torch.cat([value, value]) if torch.is_tensor(value) else Text(*twice(*value)) for value in values]


@pytest.fixture(scope="module")
def expected():
    with np.load(FIXTURES / "microdit.npz") as file:
        return {name: torch.from_numpy(file[name]) for name in file}


@pytest.fixture(scope="module")
def network():
    fixed = {"pos_embed": sincos_positions(64, 4, 4, 4), "mask_token": torch.zeros(1, 1, 16)}
    return fill(MicroDiT(TINY, Sparsity(mask=0.75)), fixed)


def test_dense_output_is_the_authors(network, expected):
    assert relative_error(network(X, T, PROMPT), expected["dense"]) < 1e-5
    assert relative_error(network(X, T, NULL), expected["null"]) < 1e-5


def test_masked_output_is_the_authors(network, expected):
    evaluation = Evaluation((Branch(0.5),), Chosen(expected["index"]))
    assert relative_error(network(X, T, PROMPT, evaluation), expected["masked"]) < 1e-5


def test_preconditioned_output_is_the_authors(network, expected):
    clean = EDM(sigma_data=0.9).denoise(network, X, torch.tensor([0.4, 3.0]), PROMPT)
    assert relative_error(clean, expected["edm"]) < 1e-5


@pytest.mark.parametrize(("gamma", "later"), [(0.0, [16] * 4), (0.75, [4] * 4), (1.0, [])])
def test_the_mixer_sees_all_tokens_and_the_rest_those_kept(network, gamma, later):
    seen = {"patch_mixer": [], "blocks": []}
    hooks = [
        layer.register_forward_pre_hook(lambda _, inputs, part=part: seen[part].append(inputs[0].shape[1]))
        for part in seen
        for layer in getattr(network, part)
    ]
    network(X, T, PROMPT, Evaluation((Branch(gamma),)))
    for hook in hooks:
        hook.remove()
    assert seen == {"patch_mixer": [16, 16], "blocks": later}


def test_dropped_tokens_get_no_prediction(network):
    kept = torch.arange(8).expand(2, 8)  # the upper half
    output = network(X, T, PROMPT, Evaluation((Branch(0.5),), Chosen(kept)))
    assert not output[:, :, 4:].any()
    assert output[:, :, :4].std() > 0.1


@pytest.mark.parametrize("sparsity", [Sparsity(mask=0.75), Sparsity((Route(1, 2),))], ids=["mask", "route"])
def test_branches_in_one_batch_or_two_calls(network, sparsity):
    """Experts choose from the tokens of one branch at a time."""
    network = fill(MicroDiT(TINY, sparsity), {name: getattr(network, name) for name in ("pos_embed", "mask_token")})
    strong, weak, seed = Branch(0.25, 0, "one"), Branch(0.75, 1, "one"), subsets(3, 7)
    both = network(*twice(X, T, PROMPT), Evaluation((strong, weak), seed))
    apart = [network(X, T, PROMPT, Evaluation((branch,), seed)) for branch in (strong, weak)]
    torch.testing.assert_close(both, torch.cat(apart), rtol=1e-5, atol=1e-5)
    mixed = [torch.cat(pair) for pair in zip(PROMPT, NULL, strict=True)]
    both = network(*twice(X, T), Text(*mixed), Evaluation((Branch(0.25, 0), Branch(0.75, 1)), seed))
    torch.testing.assert_close(both[:2], apart[0], rtol=1e-5, atol=1e-5)
    assert not torch.allclose(both[2:], apart[1], atol=1e-3)


def test_other_sizes_and_aspects(network):
    for height, width in ((16, 16), (4, 12)):
        x = formula("other", (2, 4, height, width))
        assert network(x, T, PROMPT, Evaluation((Branch(0.5),))).shape == x.shape
