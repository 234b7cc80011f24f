"""PRX against diffusers: its transformer dense, its pipelines step by step, and a route against a slow reference."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from diffusers import FlowMatchEulerDiscreteScheduler, PRXPipeline, PRXPixelPipeline, PRXTransformer2DModel
from formula import Chosen, formula, relative_error
from torch._dynamo.testing import CompileCounter
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from sparse_model.checkpoints.checkpoint import build
from sparse_model.checkpoints.clues import Clues
from sparse_model.checkpoints.families import recognise
from sparse_model.conditions.text import Text, concatenate
from sparse_model.cost import counter
from sparse_model.method.branches import Branch, Evaluation
from sparse_model.method.sampling import Denoiser, noise, sample
from sparse_model.method.schedule import constant
from sparse_model.method.sparsity import Route, Sparsity
from sparse_model.method.tokens import subsets
from sparse_model.networks.layers import Backend
from sparse_model.networks.prx import PRX, PRXConfig

META = Backend(device="meta")
WIDTH, HEADS, DEPTH, TEXT, TOKENS = 48, 4, 4, 20, 7
VARIANTS = {
    "flux": {"in_channels": 16, "patch_size": 2},
    "dcae": {"in_channels": 32, "patch_size": 1},
    "pixels": {"in_channels": 3, "patch_size": 16, "bottleneck_size": 10, "resolution_embeds": True},
}


def theirs(variant: str) -> PRXTransformer2DModel:
    network = PRXTransformer2DModel(
        **VARIANTS[variant], context_in_dim=TEXT, hidden_size=WIDTH, mlp_ratio=2.5, num_heads=HEADS, depth=DEPTH,
        axes_dim=[6, 6],
    )  # fmt: skip
    weights = {name: formula(name, tuple(value.shape)) for name, value in network.state_dict().items()}
    network.load_state_dict({key: value + ("norm_" in key) for key, value in weights.items()})
    return network.eval().requires_grad_(False)


def ours(variant: str, routes: tuple[Route, ...] = ()) -> tuple[PRX, object]:
    state = theirs(variant).state_dict()
    spec = recognise(Clues({key: tuple(value.shape) for key, value in state.items()}, "prx-256-t2i"))
    network = build(spec).eval().requires_grad_(False)
    network.load_state_dict(state)
    network.sparsity = Sparsity(routes)
    return network, spec


def inputs(variant: str, height: int = 4, length: int = 6, batch: int = 2) -> tuple[torch.Tensor, torch.Tensor, Text]:
    values = VARIANTS[variant]
    x = 4 * formula("x", (batch, values["in_channels"], height * values["patch_size"], length * values["patch_size"]))
    counts = torch.arange(batch) * 3 + 2  # of tokens in each prompt
    text = Text(4 * formula("text", (batch, TOKENS, TEXT)), torch.arange(TOKENS) < counts[:, None])
    return x, torch.linspace(0.25, 1, batch), text


@pytest.mark.parametrize("variant", VARIANTS)
def test_dense(variant):
    network, _ = ours(variant)
    x, t, text = inputs(variant)
    expected = theirs(variant)(x, t, text.embeddings, text.mask, return_dict=False)[0]
    assert relative_error(network(x, t, text), expected) < 1e-5
    assert expected.std() > 0.1


@pytest.mark.parametrize("variant", VARIANTS)
def test_padding_has_no_effect(variant):
    network, _ = ours(variant)
    x, t, text = inputs(variant)
    other = Text(torch.where(text.mask[..., None], text.embeddings, 100.0), text.mask)
    torch.testing.assert_close(network(x, t, other), network(x, t, text))
    shown = Text(other.embeddings, torch.ones_like(text.mask))
    assert relative_error(network(x, t, shown), network(x, t, text)) > 1e-2


@pytest.mark.parametrize("side", ["left", "right"])
def test_text_without_its_padding_gives_the_same(side):
    """Padded to 256 tokens as published on either side, and cut to the 64 that hold both prompts."""
    network, spec = ours("flux")
    x, t, text = inputs("flux")
    padding = (0, 256 - TOKENS) if side == "right" else (256 - TOKENS, 0)
    padded = Text(F.pad(text.embeddings, (0, 0, *padding), value=9.0), F.pad(text.mask, padding))
    fitted = spec.text.fit(padded)
    assert fitted.mask.shape == (2, 64) and torch.equal(fitted.mask.sum(dim=1), text.mask.sum(dim=1))
    assert relative_error(network(x, t, fitted), network(x, t, padded)) < 1e-5
    long = spec.text.fit(Text(padded.embeddings, torch.ones_like(padded.mask)))
    assert torch.equal(long.embeddings, padded.embeddings)
    with pytest.raises(ValueError, match="has 19 channels but this model reads text of 20"):
        spec.text.fit(Text(padded.embeddings[..., :19], padded.mask))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("routes", [(Route(1, 2),), (Route(0, 0), Route(2, -1))])
def test_routed(variant, routes):
    """The reference runs every token through every block of theirs, hides the routed ones from attention, and puts
    them back as they were."""
    network, _ = ours(variant, routes)
    reference = theirs(variant)
    x, t, text = inputs(variant)
    index = torch.stack([torch.tensor([0, 2, 3, 7, 11, 23]), torch.tensor([1, 2, 10, 12, 13, 20])])
    output = network(x, t, text, Evaluation((Branch(0.75),), Chosen(index)))

    kept = torch.zeros(2, 24, dtype=torch.bool).scatter(1, index, True)
    routed = [i for route in routes for i in route.layers(DEPTH)]
    hidden = {}
    for number in routed:
        block = reference.blocks[number]

        def remember(module, args, kwargs):
            hidden["before"] = kwargs["hidden_states"]

        def restore(module, args, kwargs, result):
            return torch.where(kept[..., None], result, hidden["before"])

        block.register_forward_pre_hook(remember, with_kwargs=True)
        block.register_forward_hook(restore, with_kwargs=True)
        block.attention.set_processor(HidingProcessor(kept))
    expected = reference(x, t, text.embeddings, text.mask, return_dict=False)[0]
    assert relative_error(output, expected) < 1e-5
    dense = theirs(variant)(x, t, text.embeddings, text.mask, return_dict=False)[0]
    assert relative_error(expected, dense) > 1e-2


@pytest.mark.parametrize("shared", [True, False], ids=["SG", "CFG + SG"])
@pytest.mark.parametrize("routes", [(Route(1, 2),), (Route(0, 0), Route(2, -1))])
def test_branches_in_one_pass(shared, routes):
    """Each chunk is what the network gives for it alone, whether the chunks carry one prompt or two."""
    network, _ = ours("flux", routes)
    x, t, text = inputs("flux")
    other = text if shared else Text(text.embeddings.flip(0) + 1, text.mask.flip(0))
    branches = Branch(0.5, 0, "a"), Branch(0.8, 1, "a" if shared else "b")
    output = network(x.repeat(2, 1, 1, 1), t.repeat(2), concatenate([text, other]), Evaluation(branches))
    for branch, condition, part in zip(branches, (text, other), output.chunk(2), strict=True):
        assert relative_error(part, network(x, t, condition, Evaluation((branch,)))) < 1e-5


@pytest.mark.parametrize("gamma", [0, 0.5, 1])
@pytest.mark.parametrize("attention", [False, True])
def test_cost_against_the_counter_of_pytorch(gamma, attention):
    network, spec = ours("flux", (Route(1, 2),))
    spec = replace(spec, sparsity=network.sparsity)
    text = Text(torch.zeros(1, spec.text.length, TEXT), torch.ones(1, spec.text.length, dtype=bool))
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as flops:
        network(torch.zeros(1, 16, 32, 32), torch.zeros(1), text, Evaluation((Branch(gamma),)))
    counts = flops.get_flop_counts()["Global"]
    expected = sum(n for op, n in counts.items() if attention or not ("attention" in str(op) or "bmm" in str(op)))
    assert counter(spec, attention)((Branch(gamma),)) == expected // 2


class HidingProcessor:
    """Attention written out over all tokens of text and picture, with logits of minus infinity where nobody looks."""

    def __init__(self, kept: torch.Tensor):
        self.kept = kept

    def __call__(self, attn, hidden_states, encoder_hidden_states, attention_mask, image_rotary_emb, **kwargs):
        def split(x, parts):
            return x.unflatten(-1, (parts, attn.heads, -1)).permute(2, 0, 3, 1, 4)  # [parts, B, heads, T, d]

        def turn(x):
            return torch.einsum("bhtdij,bhtdj->bhtdi", image_rotary_emb, x.unflatten(-1, (-1, 2))).flatten(-2)

        q, k, v = split(attn.img_qkv_proj(hidden_states), 3)
        text_k, text_v = split(attn.txt_kv_proj(encoder_hidden_states), 2)
        q, k, text_k = turn(attn.norm_q(q)), turn(attn.norm_k(k)), attn.norm_added_k(text_k)
        logits = q @ torch.cat([text_k, k], dim=2).mT / q.shape[-1] ** 0.5
        seen = torch.cat([attention_mask, self.kept], dim=1)
        weights = logits.masked_fill(~seen[:, None, None], -torch.inf).softmax(dim=-1)
        return attn.to_out[0]((weights @ torch.cat([text_v, v], dim=2)).transpose(1, 2).flatten(2))


def test_it_has_the_tensors_of_the_published_size():
    with torch.device("meta"):
        published = PRXTransformer2DModel().state_dict()
    ours = PRX(PRXConfig(), backend=META).state_dict()
    assert {key: value.shape for key, value in ours.items()} == {key: value.shape for key, value in published.items()}


@pytest.mark.parametrize("omega", [1.0, 5.0])
@pytest.mark.parametrize("variant", VARIANTS)
def test_trajectory_of_the_pipeline(variant, omega):
    network, spec = ours(variant)
    scheduler = FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=3.0)
    kind = PRXPixelPipeline if variant == "pixels" else PRXPipeline
    rest = {} if variant == "pixels" else {"vae": None}
    pipeline = kind(theirs(variant), scheduler, None, None, **rest)
    _, _, text = inputs(variant, batch=1)
    null = Text(4 * formula("null", (1, TOKENS, TEXT)), torch.arange(TOKENS).expand(1, -1) < 1)
    side = 4 * VARIANTS[variant]["patch_size"]
    shape, steps, expected, latents = (VARIANTS[variant]["in_channels"], side, side), 7, [], []
    start = noise(5, 1, shape) * spec.prediction.noise_scale

    def remember(pipe, step, time, values):
        expected.append(values["latents"])
        return values

    scale = getattr(pipeline, "vae_scale_factor", 1)
    final = pipeline(
        height=side * scale, width=side * scale, num_inference_steps=steps, guidance_scale=omega, latents=start,
        prompt_embeds=text.embeddings, prompt_attention_mask=text.mask, negative_prompt_embeds=null.embeddings,
        negative_prompt_attention_mask=null.mask, output_type="latent" if variant != "pixels" else "pt",
        use_resolution_binning=False, callback_on_step_end=remember,
    )  # fmt: skip
    assert final is not None and len(expected) == steps

    torch.testing.assert_close(spec.prediction.sigmas(steps), scheduler.sigmas, rtol=0, atol=1e-7)
    sigmas = spec.prediction.sigmas(steps).tolist()
    x = start
    clean = []
    result = sample(
        Denoiser(network, spec.prediction), text, constant(0, 0, omega, "CFG"), shape=shape, steps=steps, seed=5,
        null=null, callback=lambda step, denoised: clean.append(denoised),
    )  # fmt: skip
    for step, denoised in enumerate(clean):
        x = x + (x - denoised) / sigmas[step] * (sigmas[step + 1] - sigmas[step])
        latents.append(x)
    for step, (a, b) in enumerate(zip(latents, expected, strict=True)):
        assert relative_error(a, b) < 1e-5, f"step {step}"
    assert relative_error(result, expected[-1]) < 1e-5


@pytest.mark.slow
def test_it_compiles_once_per_number_of_prompts():
    """Without a break in the graph: branches of one prompt, and of two; other tokens compile nothing."""
    network, _ = ours("flux", (Route(1, 2),))
    x, t, text = inputs("flux")
    other = Text(text.embeddings.flip(0), text.mask.flip(0))
    counter = CompileCounter()
    compiled = torch.compile(network, backend=counter, fullgraph=True, dynamic=False)
    for step in range(3):
        for weak, source in ((text, "a"), (other, "b")):
            branches = Branch(0.5, 0, "a"), Branch(0.75, 1, source)
            prepared = Evaluation(branches, subsets(3, step)).drawn(network.sparsity.count, 2, 24, x.device)
            call = x.repeat(2, 1, 1, 1), t.repeat(2), concatenate([text, weak]), prepared
            torch.testing.assert_close(compiled(*call), network(*call))
    assert counter.frame_count == 2
