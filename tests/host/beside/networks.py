"""Nodes that change networks of other kinds, and attention itself."""

import importlib
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from cases import Control
from probing import message
from setting import Model, own, sampled, warnings
from torch import Tensor


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
                # Skip Layer Guidance asks in a batch of its own, which some processors round differently
                same_picture = torch.allclose(sampled(patcher, given), plain, atol=1e-4)
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


CASES: dict[str, Callable[[], Any]] = {
    "U-Net nodes": u_net_nodes,
    "for other networks": for_other_networks,
    "attention kernel": attention_kernel,
}
