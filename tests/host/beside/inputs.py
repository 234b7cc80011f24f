"""Nodes that give one chunk of a batch other values than another chunk of the same condition."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any
from unittest import mock

import comfy.samplers
import torch
from comfy.patcher_extension import WrappersMP
from probing import SEED, error
from setting import MODELS, Route, Sparsity, constant, guided, host, part, routed, sampled, sg
from torch import Tensor

Call, Inputs = part("nodes.host.routes.routing").Call, part("nodes.host.routes.inputs").Inputs


def apart(act: Callable[[], Any]) -> Any:
    """With every branch on its own from the first block to the last."""
    with mock.patch.object(Inputs, "shared", lambda *_: False), mock.patch.object(Call, "bundles", lambda *_: []):
        return act()


def one_by_one(patcher: Any, act: Callable[[], Any]) -> Any:
    """With a call of the model for every branch, as the host makes them when memory is short."""
    with mock.patch.object(patcher.model, "memory_required", lambda *_, **__: math.inf):
        return act()


def second(options: dict, value: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """`value` [N, ...] with the rows changed that answer the second branch."""
    chunks = value.chunk(len(options["cond_or_uncond"]))
    pairs = zip(options["cond_or_uncond"], chunks, strict=True)
    return torch.cat([change(chunk) if label == 1 else chunk for label, chunk in pairs])


def of_the_network(place: int, change: Callable[[Tensor], Tensor]) -> Callable:
    """A wrapper around the network that changes one of (x, timesteps, context)."""

    def wrapper(run: Callable, *args: Any, **kwargs: Any) -> Tensor:
        options = next(each for each in [*args, *kwargs.values()] if isinstance(each, dict) and "uuids" in each)
        given = [*args]
        given[place] = second(options, given[place], change)
        return run(*given, **kwargs)

    return wrapper


def louder(tokens: Tensor) -> Tensor:
    return 1.5 * tokens


def later(times: Tensor) -> Tensor:
    return 0.5 * times


def replacement(args: dict, extra: dict) -> dict:
    """In place of the first of the two blocks of FLUX.1 in front of the route."""
    output = extra["original_block"](args)
    return {**output, "img": second(args["transformer_options"], output["img"], louder)}


def wrapping(where: str, place: int, change: Callable[[Tensor], Tensor]) -> Callable[[Any], Any]:
    return lambda model: model.add_wrapper_with_key(where, "any", of_the_network(place, change))


def function_around(model: Any) -> None:
    model.set_model_unet_function_wrapper(
        lambda run, args: run(
            args["input"], second(args["c"]["transformer_options"], args["timestep"], later), **args["c"]
        )
    )


def block_in_front(model: Any) -> None:
    for number, change in enumerate((replacement, lambda args, extra: extra["original_block"](args))):
        model.set_model_patch_replace(change, "dit", "double_block", number)


NODES: dict[str, Callable[[Any], Any]] = {
    "x": wrapping(WrappersMP.DIFFUSION_MODEL, 0, louder),
    "timesteps": wrapping(WrappersMP.DIFFUSION_MODEL, 1, later),
    "context": wrapping(WrappersMP.DIFFUSION_MODEL, 2, louder),
    "x of the model": wrapping(WrappersMP.APPLY_MODEL, 0, louder),
    "behind": wrapping(WrappersMP.APPLY_MODEL, 1, later),
    "function": function_around,
}
"""What other nodes do to the second branch alone, in front of every network."""
IN_BLOCKS: dict[str, Callable[[Any], Any]] = {"block": block_in_front}
"""What they do inside networks of the host."""


def inputs(where: str) -> dict[str, dict[str, float]]:
    """How far the two predictions are from those of branches called one by one, and from those without the node."""
    patcher, x, positive, _ = MODELS[where]()
    sparse = routed(patcher, Sparsity((Route(2, -2),)))  # two blocks in front
    plain, found = sg(sparse, x, positive), {}
    for name, node in (NODES | (IN_BLOCKS if where == "host" else {})).items():
        model = sparse.clone()
        node(model)
        expected = one_by_one(patcher, lambda model=model: sg(model, x, positive))
        errors = map(error, sg(model, x, positive), expected)
        found[name] = {"error": max(errors), "effect": error(expected[1], plain[1])}
    return found


def prompts() -> dict[str, dict[str, Any]]:
    """CFG + SG, and SG beside CFG, of models that time alone modulates, and of one whose guidance differs: guided
    samples against those of branches on their own, and how often a routed layer runs in a step."""
    layers = {
        "FLUX.2": lambda network: network.double_blocks[1].img_attn.qkv,
        "AuraFlow": lambda network: network.single_layers[0].attn.w1q,
        "Chroma": lambda network: network.single_blocks[0].linear1,
        "FLUX.1": lambda network: network.double_blocks[1].img_attn.qkv,
    }
    cases = [(name, rule, {}) for name in layers for rule in ("CFG + SG", "SG beside CFG")]
    cases.append(("FLUX.2", "CFG + SG", {"guidance": 1.0}))
    found = {}
    for name, rule, extra in cases:
        patcher, x, positive, negative = host(name)
        if patcher is None:
            continue
        asked = patcher, x, positive, [[negative[0][0], {**negative[0][1], **extra}]]
        planned, runs = guided(routed(patcher), constant(0.25, 0.75, 2.0, rule)), []
        hook = layers[name](patcher.model.diffusion_model).register_forward_hook(lambda *_, runs=runs: runs.append(1))
        together = sampled(planned, asked)
        hook.remove()
        expected = apart(lambda planned=planned, asked=asked: sampled(planned, asked))
        found[", ".join([name, rule, *extra])] = {"error": error(together, expected), "runs": len(runs) / 4}
    return found


def another_run() -> dict[str, Any]:
    """What is known of two prompts ends with the run: a guider keeps the ids of its conditions for all of its runs, and
    another node writes another guidance into one of these."""
    patcher, x, positive, negative = host("FLUX.2")
    if patcher is None:
        return {"error": 0.0}
    guider = comfy.samplers.CFGGuider(guided(routed(patcher), constant(0.25, 0.75, 2.0, "CFG + SG")))
    guider.set_conds(positive, negative)
    guider.set_cfg(2.0)
    sigmas, sampler, errors = torch.linspace(1, 0, 3), comfy.samplers.sampler_object("euler"), []

    def run() -> Tensor:
        return guider.sample(x, torch.zeros_like(x), sampler, sigmas, disable_pbar=True, seed=SEED)

    for guidance in (3.5, 1.0, 3.5):
        guider.original_conds["negative"][0]["guidance"] = guidance
        errors.append(error(run(), apart(run)))
    return {"error": max(errors)}


CASES: dict[str, Callable[[], Any]] = {f"inputs, {where}": partial(inputs, where) for where in MODELS}
CASES |= {"prompts": prompts, "another run": another_run}
