"""XUT against outputs of the authors' code, and its U that sees part of the tokens of the image.

fixtures/xut.npz was made once with KohakuBlueleaf/HDM: its XUDiT of width 48, 4 heads, 1 + 2 * (1 + 3) + 2 layers for
latents of 4 x 8 x 12 and prompts of width 24, weights by `weight`, positions and aspect as its pipeline makes them.
`dense` has prompts of 11 tokens, `short` of 3, `tall` a latent of 4 x 16 x 6; `right`, `down` and `near` are `short`
from the CAMERAS; `sparse_G` is `dense` at a rate of G with the tokens `kept_G`. `small` and `large` have the published
proportions of XUT-small and XUT-large. `trajectory_G` are the latents that its pipeline goes through in 8 steps of
scale 3 from noise of seed 7, the positive prompt dense, the negative one at a rate of G (at 0.5 with a camera), on the
tokens that this project draws.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from formula import FIXTURES, Chosen, formula, relative_error
from torch._dynamo.testing import CompileCounter

from sparse_model.conditions.text import Text, concatenate
from sparse_model.method.branches import Branch, Evaluation
from sparse_model.method.prediction import Flow
from sparse_model.method.sparsity import Route, Sparsity
from sparse_model.method.tokens import subsets
from sparse_model.networks.xut import XUT, XUTConfig

TINY = XUTConfig(width=48, heads=4, hidden=80, text_width=24, levels=2, after=2)
SMALL = replace(TINY, width=56, heads=7, text_width=20, levels=3, decoder=2)
LARGE = replace(TINY, width=64, heads=2, text_width=36, encoder=2, before=2, after=1)
THE_U = Sparsity((Route(1, 1),))
X, T = 4 * formula("x", (2, 4, 8, 12)), torch.tensor([0.3, 0.9])
CAMERAS = {"right": (0.25, 0.0, 1.0), "down": (0.0, -0.4, 1.0), "near": (0.1, 0.2, 1.33)}


def prompt(name, tokens, width=24, batch=2):
    return Text(4 * formula(name, (batch, 1, tokens, width))[:, 0], None)


LONG, SHORT = prompt("long", 11), prompt("short", 3)


def weight(name, shape):
    """As after some training: norms and outputs near 1, a modulation that leaves them there, frequencies around e."""
    value = formula(name, shape)
    if name.endswith("norm.weight") or (name.startswith("shared_adaln") and name.endswith("0.weight")):
        return 1 + value
    if name.startswith("out_patch") or (name.startswith("shared_adaln") and ".3." in name):
        return value / 10
    return 1 + value / 3 if name.endswith("freqs") else value


def make(config, sparsity=THE_U):
    network = XUT(config, sparsity)
    network.load_state_dict({name: weight(name, tuple(v.shape)) for name, v in network.state_dict().items()})
    return network.eval().requires_grad_(False)


def padded(text, length):
    """The prompts with noise behind them that nobody should see."""
    missing = length - text.embeddings.shape[1]
    noise = 9 * formula("padding", (len(text.embeddings), 1, missing, text.embeddings.shape[2]))[:, 0]
    mask = torch.arange(length).expand(len(noise), -1) < length - missing
    return Text(torch.cat([text.embeddings, noise], dim=1), mask)


ROUNDING = 3e-5
"""Times turn by up to 1,000 radians in float32, where the exponentials and cosines of processors differ."""


@pytest.fixture(scope="module")
def expected():
    with np.load(FIXTURES / "xut.npz") as file:
        return {name: torch.from_numpy(file[name]) for name in file}


@pytest.fixture(scope="module")
def network():
    return make(TINY)


def test_dense_output_is_the_authors(network, expected):
    assert relative_error(network(X, T, LONG), expected["dense"]) < ROUNDING
    assert relative_error(network(X, T, SHORT), expected["short"]) < ROUNDING
    assert relative_error(network(4 * formula("tall", (2, 4, 16, 6)), T, SHORT), expected["tall"]) < ROUNDING


@pytest.mark.parametrize("name", CAMERAS)
def test_a_camera_sees_what_the_authors_sees(network, expected, name):
    camera = torch.tensor([CAMERAS[name]]).expand(2, 3)
    assert relative_error(network(X, T, SHORT, camera=camera), expected[name]) < ROUNDING


@pytest.mark.parametrize("gamma", [0.25, 0.5, 0.75, 1.0])
def test_sparse_output_is_the_authors(network, expected, gamma):
    evaluation = Evaluation((Branch(gamma),), Chosen(expected[f"kept_{gamma:g}"]))
    assert relative_error(network(X, T, LONG, evaluation), expected[f"sparse_{gamma:g}"]) < ROUNDING


@pytest.mark.parametrize(("name", "config"), [("small", SMALL), ("large", LARGE)])
def test_other_proportions_are_the_authors(expected, name, config):
    network, text = make(config, Sparsity((Route(config.before, config.before),))), prompt(name, 5, config.text_width)
    assert relative_error(network(X, T, text), expected[name]) < ROUNDING
    evaluation = Evaluation((Branch(0.5),), Chosen(expected[f"{name}_kept"]))
    assert relative_error(network(X, T, text, evaluation), expected[f"{name}_sparse"]) < ROUNDING


@pytest.mark.parametrize(("gamma", "camera"), [(0.25, (0.0, 0.0, 1.0)), (0.5, (0.1, -0.2, 1.25))])
def test_sampling_goes_the_authors_way(network, expected, gamma, camera):
    """Flow matching without a shift by Euler, both branches of CFG + SG in one pass, the shorter prompt padded."""
    trajectory = expected[f"trajectory_{gamma:g}"]
    text = concatenate([prompt("prompt", 11, batch=1), prompt("negative", 4, batch=1)])
    sigmas = Flow().sigmas(8)
    x, camera = trajectory[:1], torch.tensor([camera]).expand(2, 3)
    for step in range(8):
        assert relative_error(x, trajectory[step : step + 1]) < 3e-5
        evaluation = Evaluation((Branch(0.0, 0), Branch(gamma, 1)), subsets(7, step))
        twice, sigma = x.repeat(2, 1, 1, 1), sigmas[step].expand(2)
        strong, weak = Flow().denoise(network, twice, sigma, text, evaluation, camera).chunk(2)
        x = x + (x - (weak + 3 * (strong - weak))) / sigmas[step] * (sigmas[step + 1] - sigmas[step])
    assert relative_error(x, trajectory[8:]) < 3e-5


@pytest.mark.parametrize(("gamma", "inside"), [(0.0, 24), (0.25, 18), (0.75, 6), (1.0, 0)])
def test_only_the_u_drops_tokens_and_none_of_text(network, gamma, inside):
    seen = {"before": [], "encoder": [], "decoder": [], "after": []}
    parts = {
        "before": network.prev_tread_trns.blocks,
        "encoder": [block for level in network.backbone.enc_blocks for block in level],
        "decoder": [block for level in network.backbone.dec_blocks for block in level],
        "after": network.post_tread_trns.blocks,
    }
    hooks = [
        block.register_forward_pre_hook(lambda _, inputs, part=part: seen[part].append(inputs[0].shape[1]))
        for part, blocks in parts.items()
        for block in blocks
    ]
    network(X, T, LONG, Evaluation((Branch(gamma),)))
    for hook in hooks:
        hook.remove()
    assert seen == {"before": [35], "encoder": [inside + 11] * 2, "decoder": [inside + 11] * 6, "after": [35] * 2}


@pytest.mark.parametrize("rates", [(0.0, 0.5), (0.25, 0.75), (0.5, 0.5), (0.25, 1.0)])
def test_branches_in_one_batch_or_two_calls(network, rates):
    """Two prompts, and one prompt of two branches: each looks at its own tokens behind the encoder."""
    strong, weak = (Branch(gamma, index) for index, gamma in enumerate(rates))
    seed, twice = subsets(3, 7), (X.repeat(2, 1, 1, 1), T.repeat(2))
    texts = LONG, padded(SHORT, 12)
    apart = [
        network(X, T, text, Evaluation((branch,), seed)) for text, branch in zip(texts, (strong, weak), strict=True)
    ]
    together = network(*twice, concatenate(texts), Evaluation((strong, weak), seed))
    assert relative_error(together, torch.cat(apart)) < 1e-5
    same = [network(X, T, LONG, Evaluation((branch,), seed)) for branch in (strong, weak)]
    shared = Evaluation(tuple(replace(branch, condition="one") for branch in (strong, weak)), seed)
    assert relative_error(network(*twice, concatenate([LONG, LONG]), shared), torch.cat(same)) < 1e-5


def test_branches_of_one_input_share_the_layer_before_the_u(network):
    rows = []
    hook = network.prev_tread_trns.blocks[0].register_forward_pre_hook(lambda _, inputs: rows.append(len(inputs[0])))
    branches = Branch(0.25, 0, "one"), Branch(0.5, 1, "one")
    network(X.repeat(2, 1, 1, 1), T.repeat(2), concatenate([LONG, LONG]), Evaluation(branches))
    hook.remove()
    assert rows == [2]


def test_padding_is_not_seen(network):
    for gamma in (0.0, 0.5):
        evaluation = Evaluation((Branch(gamma),), subsets(5))
        output, same = (network(X, T, text, evaluation) for text in (SHORT, padded(SHORT, 8)))
        assert relative_error(output, same) < 1e-5


def test_a_route_over_more_than_the_u(network):
    wider = make(TINY, Sparsity((Route(0, -2),)))
    lengths = []
    for block in (wider.prev_tread_trns.blocks[0], *wider.post_tread_trns.blocks):
        block.register_forward_pre_hook(lambda _, inputs: lengths.append(inputs[0].shape[1]))
    wider(X, T, SHORT, Evaluation((Branch(0.5),)))
    assert lengths == [15, 15, 27]
    torch.testing.assert_close(wider(X, T, SHORT), network(X, T, SHORT))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(expected, dtype):
    network = make(TINY).to(dtype)
    output = network(X.to(dtype), T, Text(LONG.embeddings.to(dtype), None))
    assert output.dtype == dtype
    assert relative_error(output.float(), expected["dense"]) < (0.01 if dtype == torch.float16 else 0.1)


@pytest.mark.slow
def test_it_compiles_once_per_number_of_prompts_and_their_length(network):
    """Without a break in the graph: branches of one prompt, and of two; other tokens and cameras compile nothing."""
    counter = CompileCounter()
    compiled = torch.compile(network, backend=counter, fullgraph=True, dynamic=False)
    for step in range(3):
        for text, sources in ((concatenate([LONG, LONG]), "aa"), (concatenate([LONG, SHORT]), "ab")):
            branches = (Branch(0.25, 0, sources[0]), Branch(0.5, 1, sources[1]))
            prepared = Evaluation(branches, subsets(3, step)).drawn(1, 2, 24, X.device)
            camera = torch.tensor([[0.1 * step, 0.0, 1.0]]).expand(4, 3)
            call = X.repeat(2, 1, 1, 1), T.repeat(2), text, prepared, camera
            assert relative_error(compiled(*call), network(*call)) < 1e-5
    assert counter.frame_count == 2


def test_the_published_size():
    """20 blocks, of which a route counts the 16 of the U as one layer, and 4,096 tokens of 1024 pixels."""
    config = XUTConfig()
    assert (config.blocks, config.depth, config.tokens(128, 128)) == (20, 5, 4096)
