"""Runs inside a host's Python, without a server: python beside.py CHECKOUT PACK CHECKPOINT [CASE ...], for
`hosted_pack.report`.

What other nodes do to a model or a sampler, beside a token route and Sparse Guidance.
"""

import importlib
import inspect
import logging
import sys
import types
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from unittest import mock

from hosted_pack import load_pack, report

checkout, pack, checkpoint, *wanted = sys.argv[1:]
part = load_pack(checkout, pack, "--use-pytorch-cross-attention")

import comfy.samplers  # noqa: E402
import torch  # noqa: E402
from cases import Case, Control  # noqa: E402
from comfy.patcher_extension import WrappersMP  # noqa: E402
from hidden_tokens import Reference  # noqa: E402
from probing import SEED, SIGMA, error, message, predictions, same  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from zoo import ZOO, build, conditions, latent  # noqa: E402

guided, SparseGuider = part("nodes.host.guide.patch").guided, part("nodes.host.guide.guider").SparseGuider
adapter_of = part("nodes.host.adapters").adapter_of
first_evaluation = part("nodes.host.guide.run").first_evaluation
Route, Sparsity = part("sparse_model.method.sparsity").Route, part("sparse_model.method.sparsity").Sparsity
subsets, constant = part("sparse_model.method.tokens").subsets, part("sparse_model.method.schedule").constant

MIDDLE, PLAN = Sparsity((Route(1, -2, 0.5),)), constant(0.25, 0.75, 2.0)
Model = tuple[Any, Tensor, list, list]
"""A patcher, a latent, a positive and a negative conditioning."""


def host(name: str = "FLUX.1", **extra: Any) -> Model:
    animal = ZOO[name]
    return build(animal), latent(animal), conditions(animal, 1, **extra), conditions(animal, 3, **extra)


def own() -> Model:
    patcher = part("nodes.host.own.loading").load(checkpoint)
    x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    label = torch.tensor([[[1.0, 0.0, 1.0]]])
    return patcher, x, [[label, {}]], [[torch.zeros_like(label), {}]]


MODELS = {"host": host, "own": own}


def routed(patcher: Any, sparsity: Any = MIDDLE) -> Any:
    return adapter_of(patcher).routed(sparsity)


def sg(patcher: Any, x: Tensor, positive: list, plan: Any = PLAN) -> list[Tensor]:
    """Strong and weak prediction."""
    return predictions(guided(patcher, plan), positive, None, x, 2.0)


def sampled(patcher: Any, model: Model, cfg: Any = 2.0, steps: int = 4, guider: type | None = None) -> Tensor:
    """Euler steps with a stock guider."""
    _, x, positive, negative = model
    guide = (guider or comfy.samplers.CFGGuider)(patcher)
    guide.set_conds(positive, negative)
    guide.set_cfg(cfg)
    sigmas, sampler = torch.linspace(1, 0, steps + 1), comfy.samplers.sampler_object("euler")
    return guide.sample(x, torch.zeros_like(x), sampler, sigmas, disable_pbar=True, seed=SEED)


class Around(nn.Module):
    """What a pack puts in the place of a module: it calls it, and names no arguments."""

    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner = inner

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.inner(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return super().__getattr__(name) if name == "inner" else getattr(self.inner, name)


def compiled(module: nn.Module) -> nn.Module:
    return torch.compile(module, backend="eager")


PARENTS: dict[str, tuple[str, str, Callable[[nn.Module], nn.Module]]] = {
    "compiled block": ("host", "diffusion_model.double_blocks.1", compiled),
    "block in another module": ("host", "diffusion_model.single_blocks.1", Around),
    "compiled network": ("host", "diffusion_model", compiled),
    "network in another module": ("host", "diffusion_model", Around),
    "another list of blocks": ("host", "diffusion_model.double_blocks", lambda blocks: nn.ModuleList(list(blocks))),
    "own compiled network": ("own", "diffusion_model", compiled),
    "own network in another module": ("own", "diffusion_model", Around),
}


def parent(where: str, name: str, change: Callable[[nn.Module], nn.Module]) -> dict[str, Any]:
    """An object patch on what a route's blocks are in, before and behind Token Route."""
    patcher, x, positive, negative = MODELS[where]()
    stock = predictions(patcher, positive, negative, x, 2.0)
    alone, about = sg(routed(patcher), x, positive), adapter_of(patcher).layer_names
    before = patcher.clone()
    before.add_object_patch(name, change(patcher.get_model_object(name)))
    behind = routed(patcher)
    behind.add_object_patch(name, change(patcher.get_model_object(name)))
    errors, named = [], []
    for patched in (routed(before), behind):
        errors += [error(a, b) for a, b in zip(sg(patched, x, positive), alone, strict=True)]
        named.append(adapter_of(patcher).layer_names == about)  # while the patched one is loaded
    again = sg(routed(patcher), x, positive)
    return {
        "error": max(errors),
        "named": all(named),
        "again": same(again, alone),
        "stock": same(stock, predictions(patcher, positive, negative, x, 2.0)),
    }


def leftovers() -> dict[str, Any]:
    """Blocks after a run, and a pack that swaps their class, then and while they are routed."""
    patcher, x, positive, negative = host()
    network = patcher.model.diffusion_model
    blocks, calls = [*network.double_blocks, *network.single_blocks], []
    alone = sg(routed(patcher), x, positive)
    clean = [name for block in blocks for name in block.__dict__ if name == "forward"]
    block = network.single_blocks[1]
    kind = type(block)

    class Swapped(kind):
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            calls.append(len(args[0]))
            return super().forward(*args, **kwargs)

    block.__class__ = Swapped
    predictions(patcher, positive, negative, x, 2.0)
    stock_calls = len(calls)
    swapped = sg(routed(patcher), x, positive)
    block.__class__ = kind
    return {"clean": not clean, "stock": stock_calls, "routed": len(calls) - stock_calls, "same": same(alone, swapped)}


class FirstBlock(nn.Module):
    """What first-block caches put in the place of all blocks for the time of a call, when nothing is cached."""

    def __init__(self, doubles: nn.ModuleList, singles: nn.ModuleList):
        super().__init__()
        self.doubles, self.singles = doubles, singles

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        if not self.singles:  # SD3
            context, x = args[0], args[1]
            for block in self.doubles:
                context, x = block(context, x, *args[2:], **kwargs)
            return context, x
        img, txt = kwargs.pop("img"), kwargs.pop("txt")
        for block in self.doubles:
            img, txt = block(img=img, txt=txt, **kwargs)
        joined = torch.cat((txt, img), 1)
        for block in self.singles:
            joined = block(joined, **kwargs)
        return joined[:, txt.shape[1] :], joined[:, : txt.shape[1]]


def first_block_cache(name: str, doubles: str, singles: str | None) -> float:
    patcher, x, positive, _ = host(name)
    alone, cached = sg(routed(patcher), x, positive), routed(patcher)
    network = patcher.model.diffusion_model

    def wrapper(model_function: Callable, args: dict) -> Tensor:
        lists = getattr(network, doubles), getattr(network, singles) if singles else nn.ModuleList()
        with mock.patch.object(network, doubles, nn.ModuleList([FirstBlock(*lists)])):
            if singles is None:
                return model_function(args["input"], args["timestep"], **args["c"])
            with mock.patch.object(network, singles, nn.ModuleList()):
                return model_function(args["input"], args["timestep"], **args["c"])

    cached.set_model_unet_function_wrapper(wrapper)
    return max(error(a, b) for a, b in zip(sg(cached, x, positive), alone, strict=True))


def tiled(count: int, together: int, order: str) -> Callable:
    """Tiled diffusion: `count` tiles along the width, `together` of them in a call. `order`: the batch of one tile
    behind the other; all tiles of one chunk; or rows as they should not be."""

    def wrapper(model_function: Callable, args: dict) -> Tensor:
        x, c, chunks = args["input"], args["c"], len(args["cond_or_uncond"])
        tiles, outputs = x.chunk(count, dim=-1), []
        for start in range(0, count, together):
            some = tiles[start : start + together]
            n, rows = len(some), len(x)
            places = torch.arange(n * rows).view(n, chunks, -1)
            if order == "chunks":
                places = places.transpose(0, 1)
            elif order == "mixed":
                places = places.flatten().view(-1, n).T  # every tile's rows apart
            places = places.flatten()

            def batch(value: Any, n: int = n, rows: int = rows, places: Tensor = places) -> Any:
                if isinstance(value, Tensor) and value.ndim and len(value) == rows:
                    return value.repeat(n, *[1] * (value.ndim - 1))[places]
                return value

            joined = model_function(
                torch.cat(some)[places], batch(args["timestep"]), **{name: batch(value) for name, value in c.items()}
            )
            outputs += list(joined[places.argsort()].chunk(n))
        return torch.cat(outputs, dim=-1)

    return wrapper


def tiles(where: str) -> dict[str, Any]:
    patcher, x, positive, negative = MODELS[where]()
    both = constant(0.25, 0.75, 2.0, "CFG + SG")

    def found(together: int, order: str = "tiles", plan: Any = PLAN) -> list[Tensor]:
        model = guided(routed(patcher), plan)
        model.set_model_unet_function_wrapper(tiled(2, together, order))
        return predictions(model, positive, negative, x, 2.0)

    def worst(one: list[Tensor], other: list[Tensor]) -> float:
        return max(error(a, b) for a, b in zip(one, other, strict=True))

    def halves(model_function: Callable, args: dict) -> Tensor:
        """Half of the rows at a time, under the labels of all."""
        rows = len(args["input"]) // 2

        def half(value: Any, i: int) -> Any:
            return value[i * rows :][:rows] if isinstance(value, Tensor) and len(value) == 2 * rows else value

        parts = [
            model_function(
                half(args["input"], i), half(args["timestep"], i), **{n: half(v, i) for n, v in args["c"].items()}
            )
            for i in range(2)
        ]
        return torch.cat(parts)

    apart = guided(routed(patcher), PLAN)
    apart.set_model_unet_function_wrapper(halves)
    return {
        "two at a time": worst(found(2), found(1)),
        "chunk by chunk": worst(found(2, "chunks"), found(1)),
        "with a negative": worst(found(2, plan=both), found(1, plan=both)),
        "mixed": message(lambda: found(2, "mixed")),
        "half the rows": message(lambda: predictions(apart, positive, None, x, 2.0)),
    }


def cached_by_uuid() -> dict[str, Any]:
    """A node that keeps its predictions by a condition's id and gives them out again in every second step."""
    model = own()
    patcher, *_ = model
    plans = {"SG": PLAN, "ICG": constant(0.0, 0.0, 2.0, "ICG"), "CFG + SG": constant(0.25, 0.75, 2.0, "CFG + SG")}
    found = {}
    for name, plan in plans.items():
        kept: dict[uuid.UUID, Tensor] = {}
        gaps, network_calls = [], []

        def cache(executor: Any, x: Tensor, *args: Any, kept: dict = kept, calls: list = network_calls, **kwargs: Any):
            options = next(value for value in args if isinstance(value, dict))
            calls.append(all(given in kept for given in options["uuids"]) and len(calls) % 2 == 1)
            if not calls[-1]:
                kept.update(
                    zip(options["uuids"], executor(x, *args, **kwargs).chunk(len(options["uuids"])), strict=True)
                )
            return torch.cat([kept[given] for given in options["uuids"]])

        def gap(args: dict, gaps: list = gaps) -> Tensor:
            gaps.append(float((args["cond_denoised"] - args["uncond_denoised"]).abs().max()))
            return args["denoised"]

        patched = patcher.clone()
        patched.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "cache", cache)
        patched.set_model_sampler_post_cfg_function(gap)
        sampled(guided(patched, plan), model, steps=6)
        found[name] = {"skipped": sum(network_calls), "gaps": gaps, "ids": len(kept)}
    return found


def in_place(where: str) -> float:
    """A node that writes into the latent that it was given, once its own call of the network is done."""
    model = MODELS[where]()
    patcher, *_ = model
    patched = patcher.clone()

    def overwrite(executor: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        output = executor(x, *args, **kwargs)
        x.fill_(7.0)
        return output

    patched.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "overwrite", overwrite)
    return error(sampled(patched, model), sampled(patcher, model))


def easycache() -> dict[str, Any] | None:
    """The host's own node over a model in float32, beside the same with a latent of its own in every call; None for a
    host whose node cannot take two predictions in a batch, guided by us or not."""
    EasyCacheNode = __import__("comfy_extras.nodes_easycache", fromlist=["EasyCacheNode"]).EasyCacheNode
    model = own()
    patcher, *_ = model
    calls = []

    def cached(copied: bool, guide: Callable[[Any], Any] = lambda patched: guided(patched, PLAN)) -> Tensor:
        patched = patcher.clone()
        if copied:

            def copy(executor: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
                return executor(x.clone(), *args, **kwargs)

            patched.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "copy", copy)
        node = EasyCacheNode.execute(patched, 2.0, 0.0, 1.0, False)
        with_cache = node.result[0] if hasattr(node, "result") else node.args[0]

        def count(executor: Any, *args: Any, **kwargs: Any) -> Tensor:
            calls.append(1)
            return executor(*args, **kwargs)

        with_cache.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "count", count)
        return sampled(guide(with_cache), model, steps=8)

    try:
        cached(True, lambda patched: patched)
    except RuntimeError:
        return None
    calls.clear()
    found, count = cached(False), len(calls)
    return {"calls": count, "error": error(found, cached(True))}


class Film:
    """A patch with data of its own for every token, as LLLite is one: it is added to the queries."""

    def __init__(self, tokens: int, width: int):
        self.data = torch.randn(1, tokens, width, generator=torch.Generator().manual_seed(8))

    def prepare(self, args: dict) -> dict:
        args["transformer_options"]["model_patch_data"][self] = self.data
        return args

    def __call__(
        self, q: Tensor, k: Tensor, v: Tensor, pe: Any = None, attn_mask: Any = None, extra_options: Any = None
    ):
        data = extra_options["model_patch_data"][self]
        flat = q.flatten(1, -2)
        if data.shape[1] != flat.shape[1]:
            raise ValueError(f"{flat.shape[1]} tokens, control has {data.shape[1]}")
        return {"q": (flat + data).view_as(q), "k": k, "v": v, "pe": pe, "attn_mask": attn_mask}


def kept_tokens(patcher: Any, branch: int, tokens: int, gamma: float) -> Tensor:
    run = first_evaluation(patcher.get_model_object("model_sampling"), SIGMA)
    return subsets(SEED, run, "exact").draw(branch, 2, tokens, gamma)


def per_token() -> dict[str, Any] | None:
    """Data per token, against the reference in which every token is there; None where the host knows no such data."""
    if not hasattr(comfy.supported_models, "Anima"):
        return None
    animal = ZOO["Anima"]
    patcher, x, positive, _ = host("Anima")
    film, short = Film(20, 32), Film(7, 32)
    patcher.set_model_attn1_patch(film)
    patcher.set_model_post_input_patch(film.prepare)
    found = sg(routed(patcher), x, positive)
    expected = []
    for branch, gamma in ((0, 0.25), (1, 0.75)):
        kept = kept_tokens(patcher, branch, 20, gamma)
        layers = Route(1, -2).layers(5)
        with Reference(patcher.model.diffusion_model, Case("Anima"), animal, layers, kept).hiding():
            expected.append(predictions(patcher, positive, None, x, 1.0)[0])
    other = build(animal)
    other.set_model_post_input_patch(short.prepare)
    return {
        "error": max(error(a, b) for a, b in zip(found, expected, strict=True)),
        "unknown": message(lambda: sg(routed(other), x, positive)),
    }


def grid_reader() -> str | None:
    """InfiniteTalk's patch, or one that reads the grid as it does; None for a host whose Wan has no such patches."""
    patcher, x, positive, _ = host("Wan 2.1")
    try:
        from comfy.ldm.wan.model_multitalk import MultiTalkCrossAttnPatch
    except ImportError:

        class MultiTalkCrossAttnPatch:
            def __init__(self, _: Any):
                pass

            def __call__(self, args: dict) -> Tensor:
                frames, *_ = args["transformer_options"]["grid_sizes"]
                return args["x"] * frames

        if "attn2_patch" not in inspect.getsource(comfy.ldm.wan.model):
            return None

    def speak(x: Tensor, audio: Tensor, shape: Any, x_ref_attn_map: Any) -> Tensor:
        frames, _, _ = shape
        return x * frames

    block = types.SimpleNamespace(norm_x=lambda x: x, audio_cross_attn=speak)
    talk = MultiTalkCrossAttnPatch(types.SimpleNamespace(model=types.SimpleNamespace(blocks=[block] * 5)))
    talk.models = list  # its weights are no model of the host's
    patcher.set_model_attn2_patch(talk)
    patcher.model_options["transformer_options"]["audio_embeds"] = torch.zeros(1)
    predictions(patcher, positive, None, x, 1.0)
    predictions(guided(routed(patcher), constant(0.0, 0.0, 2.0, "CFG + SG")), positive, positive, x, 2.0)
    return message(lambda: sg(routed(patcher), x, positive))


def failing_patch() -> str | None:
    """A patch of a block's attention with data of its own that nobody can cut."""
    if not hasattr(comfy.supported_models, "Anima"):
        return None
    patcher, x, positive, _ = host("Anima")
    weights = torch.ones(1, 20, 1)

    def regional(q: Tensor, k: Tensor, v: Tensor, **rest: Any) -> dict:
        return {"q": (q.flatten(1, -2) * weights).view_as(q), "k": k, "v": v, "pe": rest["pe"]}

    patcher.set_model_attn1_patch(regional)
    return message(lambda: sg(routed(patcher), x, positive))


def guide_frames() -> float | None:
    """LTX with a guide frame at 30 %, against the reference with the mask written out; None for a host without."""
    from comfy.ldm.lightricks import model as ltx

    if not hasattr(ltx, "GuideAttentionMask"):
        return None
    animal = ZOO["LTX-Video"]
    guides = torch.zeros(1, 3, 12, 2) + torch.arange(12.0)[:, None]
    entries = [{"pre_filter_count": 12, "strength": 0.3, "pixel_mask": None, "latent_shape": (1, 3, 4)}]
    extra = {"keyframe_idxs": guides, "concat_mask": torch.ones(1, 1, 3, 3, 4), "guide_attention_entries": entries}
    patcher, x, positive, _ = host("LTX-Video", **extra)
    network, found, expected = patcher.model.diffusion_model, sg(routed(patcher), x, positive), []
    parts = network._build_guide_self_attention_mask

    def dense(*args: Any) -> Tensor:
        mask = parts(*args)
        full = mask.noisy_mask.expand(-1, -1, mask.noisy_mask.shape[-1], -1).clone()
        full[:, :, mask.guide_start : mask.guide_start + mask.tracked_count] = mask.tracked_mask
        return full

    plain = build(animal)
    unmasked = sg(routed(plain), x, conditions(animal, 1, **{**extra, "guide_attention_entries": None}))
    assert error(found[1], unmasked[1]) > 1e-4, "the mask changes nothing"
    with mock.patch.object(network, "_build_guide_self_attention_mask", dense):
        for branch, gamma in ((0, 0.25), (1, 0.75)):
            kept = kept_tokens(patcher, branch, 24, gamma)
            case = Case("LTX-Video", size=24, extra=extra)
            with Reference(network, case, animal, Route(1, -2).layers(5), kept).hiding():
                expected.append(predictions(patcher, positive, None, x, 1.0)[0])
    return max(error(a, b) for a, b in zip(found, expected, strict=True))


def unconditional(where: str) -> dict[str, Any]:
    """What nodes that ask for the unconditional prediction at cfg 1 get."""
    patcher, x, positive, negative = MODELS[where]()

    def seen(model: Any, cfg: float = 1.0, guider: Any = None) -> list[Tensor]:
        watched, found = model.clone(), []

        def capture(args: dict) -> Tensor:
            found.extend((args["denoised"], args["cond_denoised"], args["uncond_denoised"]))
            return args["denoised"]

        watched.set_model_sampler_post_cfg_function(capture, disable_cfg1_optimization=True)
        sampled(watched, (watched, x, positive, negative), cfg, steps=2, guider=guider)
        return found

    class Ours(SparseGuider):
        def __init__(self, model: Any):
            super().__init__(model, constant(0.0, 0.5, 1.0), positive, negative)

        def set_conds(self, positive: list, negative: list) -> None:
            self.inner_set_conds({"positive": positive, "negative": negative})

    model, stock = routed(patcher), seen(patcher)
    sparse = seen(guided(model, PLAN))
    return {
        "gamma 0": same(stock, seen(guided(model, constant(0.0, 0.5, 2.0)))),
        "CFG + SG": same(stock, seen(guided(model, constant(0.0, 0.0, 2.0, "CFG + SG")))),
        "guider": same(stock, seen(model, guider=Ours)),
        "asked": error(sparse[2], sparse[1]) > 1e-3,  # another condition
        "guided": error(seen(guided(model, PLAN), 2.0)[2], sparse[2]) > 1e-3,  # at cfg 2 the weak branch
    }


def attention_guidance() -> dict[str, Any] | None:
    """The host's node for negative prompts at cfg 1: as without us at gamma 0."""
    try:
        from comfy_extras.nodes_nag import NAGuidance
    except ImportError:
        return None
    patcher, x, positive, negative = host()
    node = NAGuidance.execute(patcher, 5.0, 0.5, 2.5)
    nag = node.result[0] if hasattr(node, "result") else node.args[0]
    model = (patcher, x, positive, negative)
    stock, plain = sampled(nag, model, 1.0), sampled(patcher, model, 1.0)
    dense = sampled(guided(routed(nag), constant(0.0, 0.5, 2.0)), model, 1.0)
    return {"same": torch.equal(stock, dense), "effect": error(stock, plain)}


def overridden() -> dict[str, Any]:
    """cfg that changes while sampling: what the host's CFG Override does, and a guider with one for each step."""
    model = own()
    patcher, *_ = model

    def override(patcher: Any, cfg: float, until: float) -> Any:
        def predict(executor: Any, *args: Any, **kwargs: Any) -> Tensor:
            if float(args[1].flatten()[0]) < until:
                return executor(*args, **kwargs)
            guider = executor.class_obj
            saved, guider.cfg = guider.cfg, cfg
            try:
                return executor(*args, **kwargs)
            finally:
                guider.cfg = saved

        clone = patcher.clone()
        clone.add_wrapper(WrappersMP.PREDICT_NOISE, predict)
        return clone

    class Listed(comfy.samplers.CFGGuider):
        def predict_noise(self, x: Tensor, timestep: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            scales, self.cfg = self.cfg, self.cfg[round(4 * (1 - float(timestep[0])))]
            try:
                return super().predict_noise(x, timestep, *args, **kwargs)
            finally:
                self.cfg = scales

    sparse = guided(patcher, PLAN)
    three, one = sampled(sparse, model, 3.0), sampled(sparse, model, 1.0)
    early = sampled(override(sparse, 3.0, 0.6), model, 1.0)
    found = {
        "from the start": torch.equal(sampled(override(sparse, 3.0, 0.0), model, 1.0), three),
        "early": min(error(early, three), error(early, one)),
        "list": torch.equal(sampled(sparse, model, [3.0, 3.0, 1.0, 1.0], guider=Listed), early),
    }
    extras = __import__("comfy_extras.nodes_custom_sampler", fromlist=["x"])
    if hasattr(extras, "CFGOverride"):
        node = extras.CFGOverride.execute(patcher, 3.0, 0.0, 0.4)
        changed = node.result[0] if hasattr(node, "result") else node.args[0]
        found["node"] = torch.equal(sampled(guided(changed, PLAN), model, 1.0), early)
    return found


@contextmanager
def warnings() -> Iterator[list[str]]:
    said: list[str] = []

    class Listening(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    handler = Listening(logging.WARNING)
    logging.getLogger().addHandler(handler)
    try:
        yield said
    finally:
        logging.getLogger().removeHandler(handler)


def unguided() -> dict[str, list[str]]:
    """What a run says about itself at cfg 1, and at others."""
    model, found = own(), {}
    for name, rule, cfg in (("SG, 1", "SG", 1.0), ("SG, 2", "SG", 2.0), ("beside, 1", "SG beside CFG", 1.0)):
        with warnings() as said:
            sampled(guided(model[0], constant(0.25, 0.75, 2.0, rule)), model, cfg)
        found[name] = [text for text in said if "Sparse Guidance" in text]
    return found


def sizes() -> dict[str, list[str]]:
    """What is said about a latent of 256 tokens, and about one of the 16 that the model was trained at."""
    patcher, _, positive, negative = own()
    found = {}
    for side in (64, 16):
        with warnings() as said:
            sampled(patcher, (patcher, torch.zeros(1, 3, side, side), positive, negative), steps=1)
        found[str(side)] = [text for text in said if "tokens" in text]
    return found


def interrupted() -> list[str]:
    """What runs of a network after somebody has asked to stop in its first block."""
    management = comfy.model_management
    model = own()
    patcher, ran = model[0], []
    for name, module in patcher.model.diffusion_model.named_modules():
        if name.startswith("blocks.") and name.count(".") == 1:
            module.register_forward_pre_hook(lambda *_, name=name: ran.append(name))
            module.register_forward_hook(lambda *_: management.interrupt_current_processing(True))
    try:
        sampled(patcher, model, steps=1)
    except management.InterruptProcessingException:
        return ran
    finally:
        management.interrupt_current_processing(False)
    return [*ran, "the end"]


def attention_by_frames() -> str | None:
    """Attention in the place of the host's that goes by frames; None for a host that lets nobody replace it."""
    if "optimized_attention_override" not in inspect.getsource(comfy.ldm.modules.attention):
        return None
    patcher, x, positive, _ = host("Wan 2.1")
    options = patcher.model_options["transformer_options"]

    def by_frames(
        attention: Callable, q: Tensor, k: Tensor, v: Tensor, heads: int, *args: Any, **kwargs: Any
    ) -> Tensor:
        if q.shape[1] == k.shape[1]:
            q.unflatten(1, (3, 12))
        return attention(q, k, v, heads, *args, **kwargs)

    options["optimized_attention_override"] = by_frames
    predictions(patcher, positive, None, x, 1.0)
    return message(lambda: sg(routed(patcher), x, positive))


def windows() -> dict[str, Any]:
    """Names of checkpoints as Windows spells them."""
    loading = part("nodes.host.own.loading")
    with mock.patch.object(loading.os, "sep", "\\"):
        names = loading.checkpoint_names(["PRX\\model.safetensors", "other.safetensors"])
    return {
        "listed": names,
        "found": [loading.listed_name(name, names) for name in ("PRX\\model.safetensors", *names)],
        "not there": message(lambda: loading.listed_name("else.safetensors", names)),
    }


def u_net_nodes() -> dict[str, str]:
    extras = __import__("comfy_extras.nodes_freelunch", fromlist=["x"])
    patcher, *_ = own()

    def act(node: Any) -> Any:
        if hasattr(node, "execute"):
            return node.execute(patcher, 1.0, 1.0, 1.0, 1.0)
        return node().patch(patcher, 1.0, 1.0, 1.0, 1.0)

    return {name: message(partial(act, getattr(extras, name))) for name in ("FreeU", "FreeU_V2")}


FOR_OTHERS = {
    "SkipLayerGuidanceDiT": ("slg", 3.0, 0.0, 1.0, "1", "1"),
    "SkipLayerGuidanceDiTSimple": ("slg", 0.0, 1.0, "1", "1"),
    "PerturbedAttentionGuidance": ("pag", 3.0),
    "SelfAttentionGuidance": ("sag", 0.5, 2.0),
    "HyperTile": ("hypertile", 256, 2, 0, False),
    "TomePatchModel": ("tomesd", 0.3),
    "NAGuidance": ("nag", 5.0, 0.5, 1.5),
    "ScaleROPE": ("rope", 2.0, 0.0, 2.0, 0.0, 1.0, 0.0),
}
"""Stock nodes that change networks of other kinds: their module and what their widgets say."""


def for_other_networks() -> dict[str, Any]:
    """What is said of such a node on a network of this pack, and whether it changed the picture."""
    model, found = own(), {}
    plain = sampled(model[0], model)

    def told(patcher: Any, given: Model) -> dict[str, Any]:
        with warnings() as said:
            try:
                same_picture = torch.equal(sampled(patcher, given), plain)
            except ValueError as problem:
                return {"error": str(problem)}
        return {"same": same_picture, "said": [text for text in said if "Sparse Guidance" in text]}

    for name, (place, *values) in FOR_OTHERS.items():
        try:
            extras = importlib.import_module(f"comfy_extras.nodes_{place}")
        except ImportError:
            continue
        found[name] = told(getattr(extras, name).execute(model[0], *values)[0], model)
    patcher, x, positive, negative = model
    control = Control(4, 32, 2, 0)
    found["ControlNet"] = told(patcher, (patcher, x, [[positive[0][0], {"control": control}]], negative))
    return found


def attention_kernel() -> dict[str, Any]:
    """Another node's attention in the place of the host's, on a network of this pack."""
    patcher, *rest = own()
    seen, changed = [], patcher.clone()

    def kernel(attention: Callable, q: Tensor, k: Tensor, v: Tensor, heads: int, **kwargs: Any) -> Tensor:
        seen.append(kwargs["transformer_options"]["sigmas"])
        return 2 * attention(q, k, v, heads, **kwargs)

    changed.model_options["transformer_options"]["optimized_attention_override"] = kernel
    plain, other, again = (sampled(each, (each, *rest)) for each in (patcher, changed, patcher))
    return {"calls": len(seen), "changed": not torch.equal(plain, other), "same": torch.equal(plain, again)}


CASES: dict[str, Callable[[], Any]] = {name: partial(parent, *how) for name, how in PARENTS.items()}
CASES |= {f"tiles, {name}": partial(tiles, name) for name in MODELS}
CASES |= {f"unconditional, {name}": partial(unconditional, name) for name in MODELS}
CASES |= {
    "leftovers": leftovers,
    "first block, FLUX.1": partial(first_block_cache, "FLUX.1", "double_blocks", "single_blocks"),
    "first block, SD3": partial(first_block_cache, "SD3", "joint_blocks", None),
    "cached by uuid": cached_by_uuid,
    "in place": partial(in_place, "own"),
    "EasyCache": easycache,
    "per token": per_token,
    "grid": grid_reader,
    "failing patch": failing_patch,
    "guide frames": guide_frames,
    "attention guidance": attention_guidance,
    "overridden": overridden,
    "unguided": unguided,
    "U-Net nodes": u_net_nodes,
    "for other networks": for_other_networks,
    "attention kernel": attention_kernel,
    "sizes": sizes,
    "interrupted": interrupted,
    "attention by frames": attention_by_frames,
    "Windows": windows,
}
report(CASES, wanted)
