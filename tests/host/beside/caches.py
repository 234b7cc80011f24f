"""Nodes that keep predictions or hidden states from step to step."""

import uuid
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any
from unittest import mock

import torch
from comfy.patcher_extension import WrappersMP
from probing import error
from setting import MODELS, PLAN, constant, guided, host, own, routed, sampled, sg
from torch import Tensor, nn


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


def seen_by_wrappers() -> dict[str, float]:
    """Of a network whose own output is the clean picture: what a wrapper around it gets, beside the denoised latent."""
    model = own()
    patcher, seen, denoised = model[0].clone(), [], []

    def look(executor: Any, *args: Any, **kwargs: Any) -> Tensor:
        seen.append(executor(*args, **kwargs))
        return seen[-1]

    def after(args: dict) -> Tensor:
        denoised.append(args["cond_denoised"])
        return args["denoised"]

    patcher.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "look", look)
    patcher.set_model_sampler_post_cfg_function(after)
    found = sampled(patcher, model, cfg=1.0)
    return {
        "to the prediction": max(error(a, b) for a, b in zip(seen, denoised, strict=True)),
        "to the run without it": error(found, sampled(model[0], model, cfg=1.0)),
    }


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
    calls.clear()
    cached(False, lambda patched: guided(patched, replace(PLAN, end=0.5)))
    return {"calls": count, "until half": len(calls), "error": error(found, cached(True))}


CASES: dict[str, Callable[[], Any]] = {
    "first block, FLUX.1": partial(first_block_cache, "FLUX.1", "double_blocks", "single_blocks"),
    "first block, SD3": partial(first_block_cache, "SD3", "joint_blocks", None),
    "cached by uuid": cached_by_uuid,
    "in place": partial(in_place, "own"),
    "EasyCache": easycache,
    "seen by wrappers": seen_by_wrappers,
}
