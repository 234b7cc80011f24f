"""What other nodes do by the labels of chunks inside networks of the host, in front of a route and in it."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import comfy.controlnet
import comfy.ldm.flux.layers
import comfy.ldm.modules.attention
import comfy.ldm.wan.model
import torch
from comfy.patcher_extension import WrappersMP
from inputs import louder, one_by_one, second
from probing import error, message
from setting import MODELS, Route, Sparsity, host, routed, sg
from together import OVERRIDE
from torch import Tensor, nn

Node = Callable[[Any, list], Any]
"""(patcher, positive conditioning) -> the conditioning, None for the same, once the node has changed one of them."""


def attention_patch(model: Any, positive: list) -> None:
    def patch(
        q: Tensor, k: Tensor, v: Tensor, pe: Any = None, attn_mask: Any = None, extra_options: Any = None
    ) -> dict:
        return {"q": q, "k": k, "v": second(extra_options, v, louder), "pe": pe, "attn_mask": attn_mask}

    model.set_model_attn1_patch(patch)


def of_wan(name: str) -> Node:
    def node(model: Any, positive: list) -> None:
        model.set_model_patch(lambda args: second(args["transformer_options"], args["x"], louder), name)

    return node


def output_patch(model: Any, positive: list) -> None:
    model.set_model_attn1_output_patch(lambda output, options: second(options, output, louder))


def attention(model: Any, positive: list) -> None:
    """In the place of the host's own."""

    def by_labels(run: Callable, q: Tensor, k: Tensor, v: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return run(q, k, second(kwargs["transformer_options"], v, louder), *args, **kwargs)

    model.model_options["transformer_options"][OVERRIDE] = by_labels


def cross_attention(model: Any, positive: list) -> None:
    """The same in attention to the prompt alone, behind another in every block."""

    def by_labels(run: Callable, q: Tensor, k: Tensor, v: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        changed = v if q.shape == k.shape else second(kwargs["transformer_options"], v, louder)
        return run(q, k, changed, *args, **kwargs)

    model.model_options["transformer_options"][OVERRIDE] = by_labels


def replaced_block(model: Any, positive: list) -> None:
    """The first one by an object of another pack, which names no arguments and calls it."""

    class Louder(nn.Module):
        def __init__(self, inner: nn.Module):
            super().__init__()
            self.inner = inner

        def forward(self, *args: Any, **kwargs: Any) -> tuple[Tensor, ...]:
            outputs = self.inner(*args, **kwargs)
            return tuple(second(kwargs["transformer_options"], each, louder) for each in outputs)

    name = "diffusion_model.double_blocks.0"
    model.add_object_patch(name, Louder(model.get_model_object(name)))


def replaced_part(model: Any, positive: list) -> None:
    """A part of the first block, which learns of labels from a wrapper."""
    known = {}

    class Louder(nn.Module):
        def __init__(self, inner: nn.Module):
            super().__init__()
            self.inner = inner

        def forward(self, x: Tensor) -> Tensor:
            return second(known, self.inner(x), louder)

    def wrapper(run: Callable, *args: Any, **kwargs: Any) -> Tensor:
        known.update(next(each for each in [*args, *kwargs.values()] if isinstance(each, dict) and "uuids" in each))
        return run(*args, **kwargs)

    name = "diffusion_model.double_blocks.0.img_mlp"
    model.add_object_patch(name, Louder(model.get_model_object(name)))
    model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "labels", wrapper)


class Control(comfy.controlnet.ControlBase):
    """A ControlNet of another pack, of another strength for every prediction."""

    def pre_run(self, *_: Any) -> None:
        pass

    def get_models(self) -> list:
        return []

    def get_control(self, x: Tensor, t: Tensor, given: dict, count: int, options: dict) -> dict[str, list[Tensor]]:
        drawn = torch.randn(1, 20, 32, generator=torch.Generator().manual_seed(3)).expand(len(x), -1, -1)
        return {"input": [second(options, drawn, torch.neg)] * 2, "output": [drawn] * 5}


class Injected(comfy.controlnet.ControlBase):
    """The host's own, into which another pack has put a function."""

    __module__ = comfy.controlnet.__name__
    pre_run, get_models = Control.pre_run, Control.get_models

    def __init__(self):
        super().__init__()
        self.get_control = partial(Control.get_control, self)


def control(kind: type) -> Node:
    def node(model: Any, positive: list) -> list:
        ((context, options),) = positive
        return [[context, {**options, "control": kind()}]]

    return node


NODES: dict[str, dict[str, Node]] = {
    "FLUX.1": {
        "attn1_patch": attention_patch,
        "attn1_output_patch": output_patch,
        "attention": attention,
        "part of a block": replaced_part,
        "block": replaced_block,
        "ControlNet": control(Control),
        "function in a ControlNet": control(Injected),
    },
    "Wan 2.1": {
        "attn1_patch": of_wan("attn1_patch"),
        "attn2_patch": of_wan("attn2_patch"),
        "cross-attention": cross_attention,
    },
}
HAS = {
    "attention": OVERRIDE in inspect.getsource(comfy.ldm.modules.attention),
    "FLUX.1": "attn1_patch" in inspect.getsource(comfy.ldm.flux.layers),
    "Wan 2.1": "attn1_patch" in inspect.getsource(comfy.ldm.wan.model),
}
"""Whether this host knows attention of other nodes, and patches in it."""


def known(name: str, node: str) -> bool:
    return HAS[name] if "patch" in node else HAS["attention"] if node.endswith("attention") else True


def labels(name: str) -> dict[str, dict[str, float]]:
    """How far the two predictions are from those of branches called one by one, and from those without the node."""
    patcher, x, positive, _ = host(name)
    sparse = routed(patcher, Sparsity((Route(2, -2),)))  # two blocks in front
    plain, found = sg(sparse, x, positive), {}
    for node, change in NODES[name].items():
        if not known(name, node):
            continue
        model = sparse.clone()
        given = change(model, positive) or positive
        expected = one_by_one(patcher, lambda model=model, given=given: sg(model, x, given))
        errors = map(error, sg(model, x, given), expected)
        found[node] = {"error": max(errors), "effect": error(expected[1], plain[1])}
    return found


def kernel() -> list[int] | None:
    """The rows that a layer in front of the route is given, of 4, beside an attention that asks for no labels; None for
    a host that lets nobody replace it."""
    if not HAS["attention"]:
        return None
    patcher, x, positive, _ = host()
    model = routed(patcher, Sparsity((Route(2, -2),)))
    model.model_options["transformer_options"][OVERRIDE] = lambda run, *args, **kwargs: run(*args, **kwargs)
    layer, rows = patcher.model.diffusion_model.double_blocks[0].img_attn.qkv, []
    hook = layer.register_forward_hook(lambda _, given, __: rows.append(len(given[0])))
    sg(model, x, positive)
    hook.remove()
    return rows


def parts(where: str) -> str:
    """The error of a wrapper that runs the network on the rows of one prediction at a time."""
    patcher, x, positive, _ = MODELS[where]()
    model = routed(patcher)

    def half(run: Callable, *args: Any, **kwargs: Any) -> Tensor:
        def of(value: Any, i: int) -> Any:
            return value.chunk(2)[i] if isinstance(value, Tensor) and len(value) == 2 * len(x) else value

        named = [{name: of(value, i) for name, value in kwargs.items()} for i in range(2)]
        return torch.cat([run(*(of(value, i) for value in args), **named[i]) for i in range(2)])

    model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "half", half)
    return message(lambda: sg(model, x, positive))


CASES: dict[str, Callable[[], Any]] = {f"labels, {name}": partial(labels, name) for name in NODES}
CASES |= {f"parts, {where}": partial(parts, where) for where in MODELS}
CASES |= {"kernel": kernel}
