"""Nitro-T's two networks against outputs of the authors' code, their deferred masking, and their pipelines.

fixtures/nitro.npz was made once with the authors' NitroDiTModel and NitroMMDiTModel and the pipelines around them:
`nitro_fixture.DIT` and `MMDIT`, weights by `filled`, positions as in the published sizes (16 patches to a picture).
`dense` and `wide` have PROMPTS, the latter a latent of 6 x 10, `null` the empty prompt. `masked_R` is their forward in
training, masked behind the third layer at a ratio of R with the tokens `kept_R`: the predictions of those tokens.
`trajectory_S` are the latents that the pipeline goes through in 6 steps at scale 4 with a scheduler of shift S, with
the second prompt, from noise of seed 5.
"""

import numpy as np
import pytest
import torch
from formula import FIXTURES, Chosen, formula, relative_error
from nitro_fixture import DIT, EMPTY, MMDIT, PROMPTS, filled
from torch._dynamo.testing import CompileCounter

from sparse_model.conditions.text import Text, concatenate
from sparse_model.method.branches import Branch, Evaluation
from sparse_model.method.prediction import Flow
from sparse_model.method.sampling import Denoiser, noise, sample
from sparse_model.method.schedule import constant
from sparse_model.method.sparsity import Route, Sparsity
from sparse_model.method.tokens import subsets
from sparse_model.networks.nitro_dit import NitroDiT
from sparse_model.networks.nitro_mmdit import NitroMMDiT

X, T = 4 * formula("x", (2, 4, 8, 8)), torch.tensor([0.3, 0.9])
MASKED, ROUTED = Sparsity(mask=0.5), Sparsity((Route(1, 3),))
KINDS = {"dit": (NitroDiT, DIT), "mmdit": (NitroMMDiT, MMDIT)}


def make(kind, sparsity=MASKED):
    network, config = KINDS[kind]
    return filled(network(config, sparsity))


def both(*values):
    """The same input for two branches."""
    return [torch.cat([value, value]) if torch.is_tensor(value) else Text(*both(*value)) for value in values]


@pytest.fixture(scope="module")
def expected():
    with np.load(FIXTURES / "nitro.npz") as file:
        return {name: torch.from_numpy(file[name]) for name in file}


@pytest.mark.parametrize("kind", KINDS)
def test_dense_output_is_the_authors(expected, kind):
    network = make(kind)
    assert relative_error(network(X, T, PROMPTS), expected[f"{kind}_dense"]) < 1e-5
    assert relative_error(network(4 * formula("wide", (2, 4, 6, 10)), T, PROMPTS), expected[f"{kind}_wide"]) < 1e-5
    empty = Text(*(value.expand(2, *value.shape[1:]) for value in EMPTY))
    assert relative_error(network(X, T, empty), expected[f"{kind}_null"]) < 1e-5
    assert relative_error(expected[f"{kind}_null"], expected[f"{kind}_dense"]) > 1e-2


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ratio", [0.5, 0.75])
def test_masked_output_is_the_authors(expected, kind, ratio):
    """And 0 for the tokens that they leave out."""
    kept = expected[f"{kind}_kept_{ratio:g}"].long()
    output = make(kind)(X, T, PROMPTS, Evaluation((Branch(ratio),), Chosen(kept)))
    tokens = output.flatten(2).mT  # [2, 64, 4]
    predicted = tokens.take_along_dim(kept.unsqueeze(-1), dim=1)
    assert relative_error(predicted, expected[f"{kind}_masked_{ratio:g}"]) < 1e-5
    assert torch.count_nonzero(tokens) == predicted.numel()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_trajectory_of_the_pipeline(expected, kind, shift):
    found, path = [], expected[f"{kind}_trajectory_{shift:g}"]
    prediction = Flow(shift=shift, levels=1000)
    text = Text(*(value[1:] for value in PROMPTS))
    end = sample(
        Denoiser(make(kind), prediction), text, constant(0, 0, 4.0, "CFG"), shape=(4, 8, 8), steps=6, seed=5,
        null=EMPTY, callback=lambda step, denoised: found.append(denoised),
    )  # fmt: skip
    assert torch.equal(path[:1], noise(5, 1, (4, 8, 8)))
    sigmas, x = prediction.sigmas(6), path[:1]
    for step, denoised in enumerate(found):
        assert relative_error(x, path[step : step + 1]) < 1e-5, f"step {step}"
        x = x + (x - denoised) / sigmas[step] * (sigmas[step + 1] - sigmas[step])
    assert relative_error(end, path[6:]) < 1e-5


def counted(network, *inputs):
    """How many tokens of the image each layer saw."""
    seen = []

    def count(layer, args):
        segments = getattr(args[-1], "lengths", ()) or (args[0].shape[1],)
        seen.append(sum(segments) - len(segments) * 7 * isinstance(network, NitroMMDiT))

    hooks = [block.register_forward_pre_hook(count) for block in network.transformer_blocks]
    network(*inputs)
    for hook in hooks:
        hook.remove()
    return seen


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("sparsity", "gammas", "tokens"),
    [
        (MASKED, (0.5,), [64, 64, 64, 32, 32]),
        (MASKED, (0.25, 0.75), [64, 64, 64, 64, 64]),
        (MASKED, (1.0,), [64, 64, 64]),
        (ROUTED, (0.5, 0.75), [64, 48, 48, 48, 64]),
    ],
)
def test_dropped_tokens_run_nowhere_else(kind, sparsity, gammas, tokens):
    """Two branches of one prompt share the layers in front, and pack what they keep behind."""
    network, rows = make(kind, sparsity), len(gammas)
    branches = tuple(Branch(gamma, i, "one") for i, gamma in enumerate(gammas))
    inputs = (X, T, PROMPTS) if rows == 1 else both(X, T, PROMPTS)
    assert counted(network, *inputs, Evaluation(branches)) == tokens


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sparsity", [MASKED, ROUTED], ids=["mask", "route"])
@pytest.mark.parametrize("shared", [True, False], ids=["SG", "CFG + SG"])
@pytest.mark.parametrize("weak", [0.75, 1.0])
def test_branches_in_one_pass(kind, sparsity, shared, weak):
    """Each is what the network gives for it alone: text, which changes from layer to layer, is each branch's own."""
    network, seed = make(kind, sparsity), subsets(3, 7)
    other = PROMPTS if shared else Text(PROMPTS.embeddings.flip(0), PROMPTS.mask.flip(0))
    branches = Branch(0.25, 0, "a"), Branch(weak, 1, "a" if shared else "b")
    output = network(*both(X, T), concatenate([PROMPTS, other]), Evaluation(branches, seed))
    for branch, text, part in zip(branches, (PROMPTS, other), output.chunk(2), strict=True):
        torch.testing.assert_close(part, network(X, T, text, Evaluation((branch,), seed)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_routed_tokens_leave_as_they_entered(kind):
    """Routed through all layers, a token that is left out is what the patches and their places made it."""
    network = make(kind, Sparsity((Route(0, -1),)))
    evaluation = Evaluation((Branch(0.5),), Chosen(torch.arange(32).expand(2, 32)))
    output = network(X, T, PROMPTS, evaluation)
    other = network(X, T, Text(PROMPTS.embeddings + 1, PROMPTS.mask), evaluation)
    assert torch.equal(output[:, :, 4:], other[:, :, 4:])
    assert relative_error(output[:, :, :4], other[:, :, :4]) > 1e-3


def test_padding_is_read_by_the_larger_network_alone():
    """The authors mask it in the 0.6B and not in the 1.2B."""
    shown = PROMPTS.mask.unsqueeze(-1)
    other = Text(torch.where(shown, PROMPTS.embeddings, 3.0), PROMPTS.mask)
    first, second = (relative_error(make(kind)(X, T, other), make(kind)(X, T, PROMPTS)) for kind in KINDS)
    assert first < 1e-6 and second > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_it_compiles_once_per_number_of_prompts(kind):
    """Without a break in the graph: branches of one prompt, and of two; other tokens compile nothing."""
    network = make(kind, ROUTED)
    other = Text(PROMPTS.embeddings.flip(0), PROMPTS.mask.flip(0))
    counter = CompileCounter()
    compiled = torch.compile(network, backend=counter, fullgraph=True, dynamic=False)
    for step in range(3):
        for weak, source in ((PROMPTS, "a"), (other, "b")):
            branches = Branch(0.5, 0, "a"), Branch(0.75, 1, source)
            prepared = Evaluation(branches, subsets(3, step)).drawn(1, 2, 64, X.device)
            call = *both(X, T), concatenate([PROMPTS, weak]), prepared
            torch.testing.assert_close(compiled(*call), network(*call))
    assert counter.frame_count == 2
