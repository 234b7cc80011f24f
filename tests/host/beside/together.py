"""Attention in routed blocks whose branches stand side by side, when other nodes change it, or it fails."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import comfy.ldm.flux.math
import comfy.ldm.modules.attention
import torch
from comfy.patcher_extension import WrappersMP
from probing import error, message, predictions
from setting import PLAN, Model, Route, Sparsity, constant, host, part, routed, sampled, sg
from setting import guided as guide
from torch import Tensor, nn

OVERRIDE = "optimized_attention_override"
Call = part("nodes.host.routes.routing").Call
PLACE, NAME = comfy.ldm.flux.math, "optimized_attention"


def louder(attention: Callable, q: Tensor, k: Tensor, v: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    return attention(q, k, 1.5 * v, *args, **kwargs)


@contextmanager
def counted(layer: nn.Module) -> Iterator[list[int]]:
    """How many tokens a layer is given, each time that it runs."""
    runs: list[int] = []
    hook = layer.register_forward_hook(lambda _, given, __: runs.append(given[0].shape[1]))
    try:
        yield runs
    finally:
        hook.remove()


def replace_blocks(patcher: Any, replacement: Callable[[dict, dict], dict]) -> None:
    for kind, count in (("double_block", 2), ("single_block", 3)):
        for number in range(count):
            patcher.set_model_patch_replace(replacement, "dit", kind, number)


def replaced_inside() -> dict[str, float] | None:
    """Attention that a node replaces while the network is called, and for single blocks, against the same replaced
    from the beginning; None for a host that lets nobody replace it."""
    if OVERRIDE not in inspect.getsource(comfy.ldm.modules.attention):
        return None
    patcher, x, positive, _ = host()
    plain, known = sg(routed(patcher), x, positive), routed(patcher)
    known.model_options["transformer_options"][OVERRIDE] = louder
    expected = sg(known, x, positive)

    def options_of(args: tuple) -> tuple:
        return tuple({**each, OVERRIDE: louder} if isinstance(each, dict) else each for each in args)

    called = routed(patcher)
    called.add_wrapper_with_key(
        WrappersMP.DIFFUSION_MODEL, "louder", lambda run, *args, **kwargs: run(*options_of(args), **kwargs)
    )
    blocks = routed(patcher)

    def replacement(args: dict, extra: dict) -> dict:
        return extra["original_block"](
            {**args, "transformer_options": {**args["transformer_options"], OVERRIDE: louder}}
        )

    replace_blocks(blocks, replacement)
    found = {"called": called, "blocks": blocks}
    return {
        **{name: max(map(error, sg(model, x, positive), expected)) for name, model in found.items()},
        "effect": error(expected[0], plain[0]),
    }


def of_another_node() -> dict[str, Any] | None:
    """Attention of another node, which goes by what it is told of its rows: against every branch on its own; None for a
    host that lets nobody replace it."""
    if OVERRIDE not in inspect.getsource(comfy.ldm.modules.attention):
        return None
    patcher, x, positive, negative = host()

    def louder_weak(attention: Callable, q: Tensor, k: Tensor, v: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        weak = kwargs["transformer_options"]["cond_or_uncond"] == [1]
        return attention(q, k, 1.5 * v if weak else v, *args, **kwargs)

    model = routed(patcher)
    model.model_options["transformer_options"][OVERRIDE] = louder_weak
    asked = patcher, x, positive, negative
    with counted(patcher.model.diffusion_model.double_blocks[1].img_attn.qkv) as runs:
        found = sampled(guide(model, PLAN), asked, steps=3)
    with mock.patch.object(Call, "bundles", lambda *_: ()):
        expected = sampled(guide(model, PLAN), asked, steps=3)
    effect = error(expected, sampled(guide(routed(patcher), PLAN), asked, steps=3))
    return {"error": error(found, expected), "effect": effect, "runs": runs}


def three_branches() -> dict[str, dict[str, Any]]:
    """SG beside CFG, whose branches with the prompt run side by side and the one without it alone: a guided sample
    against one of branches on their own, and the tokens that a routed layer is given in the first evaluation."""
    layers = {
        "FLUX.1": lambda network: network.double_blocks[1].img_attn.qkv,
        "SD3": lambda network: network.joint_blocks[1].x_block.attn.qkv,
        "Chroma": lambda network: network.single_blocks[0].linear1,
    }
    plan, found = constant(0.25, 0.75, 2.0, "SG beside CFG"), {}
    for name, layer in layers.items():
        asked = host(name)
        guided = guide(routed(asked[0]), plan)
        with counted(layer(asked[0].model.diffusion_model)) as runs:
            together = sampled(guided, asked)
        with mock.patch.object(Call, "bundles", lambda *_: ()):
            apart = sampled(guided, asked)
        found[name] = {"error": error(together, apart), "runs": runs[:2], "steps": len(runs)}
    return found


def unheard() -> dict[str, Any]:
    """Attention put in the place of the host's function itself, which asks for nothing in transformer_options."""
    patcher, x, positive, negative = host()
    original = getattr(PLACE, NAME)
    bare = getattr(original, "__wrapped__", original)

    def deaf(*args: Any, transformer_options: Any = None, **kwargs: Any) -> Tensor:
        return bare(*args, **kwargs)

    model: Model = (patcher, x[:1], positive, negative)
    errors = []
    for rows in (x, x[:1]):
        alone = sg(routed(patcher), rows, positive)
        with mock.patch.object(PLACE, NAME, deaf):
            errors += map(error, sg(routed(patcher), rows, positive), alone)
    guided = guide(routed(patcher), PLAN)
    layer = patcher.model.diffusion_model.double_blocks[1].img_attn.qkv
    with counted(layer) as runs, mock.patch.object(PLACE, NAME, deaf):
        sampled(guided, model, steps=3)
    with counted(layer) as again:
        sampled(guided, model, steps=3)
    return {"error": max(errors), "runs": runs, "again": again}


def without_options() -> float | None:
    """A replacement of blocks that hands on what it knows, no transformer_options; None for a host that fails then."""
    patcher, x, positive, _ = host()
    alone, replaced = sg(routed(patcher), x, positive), patcher.clone()

    def replacement(args: dict, extra: dict) -> dict:
        return extra["original_block"]({name: args[name] for name in args if name != "transformer_options"})

    replace_blocks(replaced, replacement)
    try:
        predictions(replaced, positive, None, x, 1.0)
    except AttributeError:
        return None
    return max(map(error, sg(routed(replaced), x, positive), alone))


def dropped_route() -> list[int]:
    """The tokens that a layer behind a route that the weak branch leaves out altogether is given."""
    patcher, x, positive, _ = host()
    sparsity = Sparsity((Route(0, 0, factor=1 / 0.75), Route(2, 3)))
    with counted(patcher.model.diffusion_model.single_blocks[0].linear1) as runs:
        sg(routed(patcher, sparsity), x, positive)
    return runs


def row_by_row() -> str:
    """The error of a replacement that runs blocks on half of the rows at a time, which no route can follow."""
    patcher, x, positive, _ = host("SD3")

    def replacement(args: dict, extra: dict) -> dict:
        def half(value: Any, i: int) -> Any:
            return value.chunk(2)[i] if isinstance(value, Tensor) else value

        parts = [extra["original_block"]({name: half(value, i) for name, value in args.items()}) for i in range(2)]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    split = routed(patcher, Sparsity((Route(0, -2),)))
    replace_blocks(split, replacement)
    return message(lambda: sg(split, x, positive))


def failing() -> dict[str, list]:
    """What reaches the host of an error in attention, and what stays on blocks."""
    patcher, x, positive, _ = host()
    network, found = patcher.model.diffusion_model, {}
    for problem in (torch.cuda.OutOfMemoryError("out of memory"), RuntimeError("another")):

        def fail(*_: Any, problem: Exception = problem, **__: Any) -> Tensor:
            found["calls"] = [*found.get("calls", []), str(problem)]
            raise problem

        fails = getattr(comfy.ldm.modules.attention, "wrap_attn", lambda function: function)(fail)
        try:
            with mock.patch.object(PLACE, NAME, fails):
                sg(routed(patcher, Sparsity((Route(0, -2),))), x, positive)
        except (torch.cuda.OutOfMemoryError, RuntimeError) as raised:
            found["raised"] = [*found.get("raised", []), raised is problem]
    blocks = [*network.double_blocks, *network.single_blocks]
    found["left"] = [name for block in blocks for name in block.__dict__ if name == "forward"]
    return found


CASES: dict[str, Callable[[], Any]] = {
    "attention replaced inside": replaced_inside,
    "attention of another node": of_another_node,
    "three branches": three_branches,
    "attention that does not ask": unheard,
    "no options": without_options,
    "dropped route": dropped_route,
    "rows apart": row_by_row,
    "failing attention": failing,
}
