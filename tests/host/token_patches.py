"""Runs inside a host's Python, without a server: python token_patches.py CHECKOUT PACK CHECKPOINT [CASE ...], for
`hosted_pack.report`.

What other nodes put inside routed blocks: InfiniteTalk, patches that care where a token stands, and those that do not.
"""

import inspect
import sys
import types
from collections.abc import Callable
from functools import partial
from typing import Any

from hosted_pack import load_pack, report

checkout, pack, checkpoint, *wanted = sys.argv[1:]
part = load_pack(checkout, pack, "--use-pytorch-cross-attention")

import comfy.ops  # noqa: E402
import comfy.samplers  # noqa: E402
import torch  # noqa: E402
from cases import Case  # noqa: E402
from hidden_tokens import Reference  # noqa: E402
from probing import SEED, SIGMA, error, message, predictions, same  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from zoo import ZOO, build, conditions, latent  # noqa: E402

guided, adapter_of = part("nodes.host.guide.patch").guided, part("nodes.host.adapters").adapter_of
first_evaluation = part("nodes.host.guide.run").first_evaluation
Route, Sparsity = part("sparse_model.method.sparsity").Route, part("sparse_model.method.sparsity").Sparsity
subsets, constant = part("sparse_model.method.tokens").subsets, part("sparse_model.method.schedule").constant

MIDDLE, PLAN = Sparsity((Route(1, -2, 0.5),)), constant(0.25, 0.75, 2.0)


def sg(patcher: Any, x: Tensor, positive: list) -> list[Tensor]:
    """Strong and weak prediction."""
    return predictions(guided(adapter_of(patcher).routed(MIDDLE), PLAN), positive, None, x, 2.0)


class HiddenSpeakers:
    """Tells speakers apart by what is not `hidden` [1, T] of the first frame, written out over all tokens."""

    def __init__(self, masks: Tensor, hidden: Tensor):
        self.masks, self.kept = masks, ~hidden[0]

    def __call__(self, args: dict) -> Tensor:
        q, k = (args[name][0].transpose(0, 1) for name in ("q", "k"))  # [heads, T, d]
        first = self.kept[: self.masks.shape[1]]
        scores = q @ k[:, : len(first)].transpose(1, 2) * q.shape[-1] ** -0.5
        weights = scores.masked_fill(~first, -torch.inf).softmax(-1).mean(0)  # [T, tokens of the first frame]
        masks = (self.masks & first).float()
        found = weights @ masks.T / (masks.sum(1) + 1e-8)
        found[~self.kept] = found[self.kept][0]
        args["transformer_options"]["x_ref_attn_map"] = found.T
        return args["x"]


def speech(speakers: int) -> dict[str, Any] | None:
    """InfiniteTalk of so many speakers beside a route, against the reference in which every token is there; None for a
    host without."""
    try:
        from comfy.ldm.wan.model_multitalk import (
            MultiTalkCrossAttnPatch,
            MultiTalkGetAttnMapPatch,
            SingleStreamMultiAttention,
        )
    except ImportError:
        return None
    animal, generator = ZOO["Wan 2.1"], torch.Generator().manual_seed(3)
    x, positive = latent(animal, 1), conditions(animal, 1)
    attention = SingleStreamMultiAttention(32, 12, num_heads=2, qkv_bias=True, operations=comfy.ops.disable_weight_init)
    attention.requires_grad_(False)
    for value in attention.parameters():
        value.data = torch.randn(value.shape, generator=generator) * 0.3
    block = types.SimpleNamespace(norm_x=lambda x: nn.functional.layer_norm(x, (32,)), audio_cross_attn=attention)
    heard = torch.randn(1, 3, 4 * speakers, 12, generator=generator)
    masks = torch.arange(12).view(1, 12) % 4 < 2
    masks = torch.cat([masks, ~masks])

    def talking(find: Any) -> Any:
        patcher = build(animal)
        talk = MultiTalkCrossAttnPatch(types.SimpleNamespace(model=types.SimpleNamespace(blocks=[block] * 5)))
        talk.models = list  # its weights are no model of the host's
        patcher.set_model_attn2_patch(talk)
        patcher.model_options["transformer_options"]["audio_embeds"] = heard
        if speakers == 2:
            patcher.set_model_patch(find, "attn1_patch")
        return patcher

    patcher = talking(MultiTalkGetAttnMapPatch(masks))
    found, silent = sg(patcher, x, positive), sg(build(animal), x, positive)
    stock = predictions(patcher, positive, None, x, 1.0)
    dense = guided(adapter_of(patcher).routed(MIDDLE), constant(0.0, 0.75, 2.0))
    errors = [error(predictions(dense, positive, None, x, 2.0)[0], stock[0])]
    for branch, gamma in ((0, 0.25), (1, 0.75)):
        run = first_evaluation(patcher.get_model_object("model_sampling"), SIGMA)
        kept = subsets(SEED, run, "exact").draw(branch, 1, 36, gamma)
        hidden = torch.ones(1, 36, dtype=torch.bool).scatter(1, kept, False)
        routed = Route(1, -2).layers(5)
        find = Everywhere(MultiTalkGetAttnMapPatch(masks), HiddenSpeakers(masks, hidden), routed)
        other = talking(find)
        reference = Reference(other.model.diffusion_model, Case("Wan 2.1"), animal, routed, kept)
        reference.hidden = hidden
        with reference.hiding():
            errors.append(error(found[branch], predictions(other, positive, None, x, 1.0)[0]))
    return {"errors": errors, "effect": error(found[1], silent[1])}


class Everywhere:
    """The host's patch outside `layers`, another one in them."""

    def __init__(self, usual: Any, inside: Any, layers: range):
        self.usual, self.inside, self.layers = usual, inside, layers

    def __call__(self, args: dict) -> Tensor:
        inside = args["transformer_options"]["block_index"] in self.layers
        return (self.inside if inside else self.usual)(args)


class Ramp(nn.Module):
    """In place of a part of a block: what it does grows along the sequence, whatever its length."""

    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner = inner

    def forward(self, tokens: Tensor) -> Tensor:
        return self.inner(tokens) * torch.linspace(0.5, 1.5, tokens.shape[1]).view(1, -1, 1).to(tokens)


class Adapter(nn.Module):
    """In place of a part of a block: the same, and attention to a picture (as IP-Adapter's)."""

    def __init__(self, inner: nn.Module, width: int):
        super().__init__()
        self.inner = inner
        self.picture = torch.randn(1, 4, width, generator=torch.Generator().manual_seed(4))

    def forward(self, tokens: Tensor) -> Tensor:
        picture = self.picture.to(tokens)
        return self.inner(tokens) + (tokens @ picture.transpose(1, 2)).softmax(-1) @ picture


def attention(kind: str) -> Callable:
    """Another node's attention in the place of the host's."""

    def perturbed(original: Callable, q: Tensor, k: Tensor, v: Tensor, heads: int, *args: Any, **kwargs: Any) -> Tensor:
        own = original(q, k, v, heads, *args, **kwargs)
        if not kwargs.get("skip_reshape", False) or q.shape[-2] != k.shape[-2]:
            return own
        if kind == "values":  # perturbed-attention guidance
            return v.transpose(1, 2).flatten(2)
        if kind == "mean query":  # smoothed-energy guidance, its blur without end
            return original(q.mean(-2, keepdim=True).expand_as(q), k, v, heads, *args, **kwargs)
        if kind == "blurred queries":  # over neighbours in the sequence
            return original(q.cumsum(-2) / q.shape[-2], k, v, heads, *args, **kwargs)
        bias = torch.linspace(-3, 3, k.shape[-2]).to(q)  # a weight for every token, as long as it has to be
        return original(q, k * bias.unsqueeze(-1), v, heads, *args, **kwargs)

    perturbed.__qualname__ = f"perturbed by {kind}"
    return perturbed


def overriding(kind: str) -> str | None:
    """What is said about another node's attention; None for a host that lets nobody replace it."""
    if "optimized_attention_override" not in inspect.getsource(comfy.ldm.modules.attention):
        return None
    answers = []
    for dtype in (torch.float32, torch.bfloat16):
        animal = ZOO["FLUX.1"]
        patcher = build(animal, dtype)
        patcher.model_options["transformer_options"]["optimized_attention_override"] = attention(kind)
        answers.append(message(lambda patcher=patcher, animal=animal: sg(patcher, latent(animal), conditions(animal))))
    assert len({answer.partition(":")[0] for answer in answers}) == 1, answers
    return answers[0]


def replaced(make: Callable[[nn.Module], nn.Module], block: str = "double_blocks.1") -> str:
    """What is said about a part of a block that another node has replaced."""
    answers = []
    for dtype in (torch.float32, torch.bfloat16):
        animal = ZOO["FLUX.1"]
        patcher = build(animal, dtype)
        name = f"diffusion_model.{block}.img_mlp"
        patcher.add_object_patch(name, make(patcher.get_model_object(name)))
        answers.append(message(lambda patcher=patcher, animal=animal: sg(patcher, latent(animal), conditions(animal))))
    assert len(set(answers)) == 1, answers
    return answers[0]


def normalized() -> str | None:
    """What is said about the host's own node for negative prompts in attention; None for a host without."""
    try:
        from comfy_extras.nodes_nag import NAGuidance
    except ImportError:
        return None
    animal = ZOO["FLUX.1"]
    node = NAGuidance.execute(build(animal), 5.0, 0.5, 2.5)
    patched = node.result[0] if hasattr(node, "result") else node.args[0]
    plan = constant(0.25, 0.75, 2.0, "CFG + SG")
    model = guided(adapter_of(patched).routed(MIDDLE), plan)
    return message(lambda: predictions(model, conditions(animal), conditions(animal, 3), latent(animal), 2.0))


def calls() -> dict[str, Any]:
    """How many rows and tokens a routed block sees in a run of three steps, with nothing of another node in it and with
    something; and that it changes no result."""
    animal = ZOO["FLUX.1"]
    found: dict[str, Any] = {}
    latents = []
    for name, change in (("alone", None), ("adapter", lambda inner: Adapter(inner, 32)), ("again", None)):
        patcher, seen = build(animal), []
        block = patcher.model.diffusion_model.double_blocks[1]
        if change is not None:
            part_name = "diffusion_model.double_blocks.1.img_mlp"
            patcher.add_object_patch(part_name, change(patcher.get_model_object(part_name)))
        block_forward = type(block).forward

        def forward(self: Any, *args: Any, seen: list = seen, original: Callable = block_forward, **kwargs: Any) -> Any:
            seen.append(tuple(kwargs["img"].shape[:2]))
            return original(self, *args, **kwargs)

        guider = comfy.samplers.CFGGuider(guided(adapter_of(patcher).routed(MIDDLE), PLAN))
        guider.set_conds(conditions(animal), conditions(animal))
        guider.set_cfg(2.0)
        x, sigmas = latent(animal), torch.linspace(1, 0, 4)
        kind = type(block)
        block.__class__ = type("Counted", (kind,), {"forward": forward})
        sampler = comfy.samplers.sampler_object("euler")
        latents.append(guider.sample(x, torch.zeros_like(x), sampler, sigmas, disable_pbar=True, seed=SEED))
        block.__class__ = kind
        found[name] = seen
    found["same"] = same([latents[0]], [latents[2]])
    return found


CASES: dict[str, Callable[[], Any]] = {
    "one speaker": partial(speech, 1),
    "two speakers": partial(speech, 2),
    "ramp": partial(replaced, Ramp),
    "ramp in front of the route": partial(replaced, Ramp, "double_blocks.0"),
    "adapter": partial(replaced, lambda inner: Adapter(inner, 32)),
    "normalized": normalized,
    "calls": calls,
}
CASES |= {kind: partial(overriding, kind) for kind in ("values", "mean query", "blurred queries", "weights")}
report(CASES, wanted)
