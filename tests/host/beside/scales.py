"""The scale of guidance, and who needs the unconditional prediction."""

import logging
from collections.abc import Callable
from functools import partial
from typing import Any
from unittest import mock

import comfy.samplers
import torch
from comfy.patcher_extension import WrappersMP
from comfy_extras.nodes_custom_sampler import Guider_Basic
from probing import SEED, error, same
from setting import MODELS, PLAN, SparseGuider, constant, guided, host, own, part, routed, sampled, warnings
from torch import Tensor


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


def unguided() -> dict[str, list[str]]:
    """What a run says about itself at cfg 1, and at others."""
    model, found = own(), {}
    for name, rule, cfg in (("SG, 1", "SG", 1.0), ("SG, 2", "SG", 2.0), ("beside, 1", "SG beside CFG", 1.0)):
        with warnings() as said:
            sampled(guided(model[0], constant(0.25, 0.75, 2.0, rule)), model, cfg)
        found[name] = [text for text in said if "Sparse Guidance" in text]
    return found


def one_condition() -> dict[str, Any]:
    """The rule with two scales where the guider has one condition: what is said, and how far its SG is from SG's."""
    patcher, x, positive, _ = own()
    sigmas, sampler = torch.linspace(1, 0, 5), comfy.samplers.sampler_object("euler")

    def basic(model: Any) -> Tensor:
        guider = Guider_Basic(model)
        guider.set_conds(positive)
        return guider.sample(x, torch.zeros_like(x), sampler, sigmas, disable_pbar=True, seed=SEED)

    with warnings(logging.INFO) as said:
        found = basic(guided(patcher, constant(0.25, 0.75, 2.0, "SG beside CFG")))
    alone = sampled(guided(patcher, PLAN), (patcher, x, positive, positive), 2.0)
    return {
        "said": [text for text in said if "there is no CFG" in text],
        "error": error(found, alone),
        "guided": error(found, basic(patcher)),
    }


def uncounted() -> list[str]:
    """What is said of a run whose network cannot be counted, which ends with its picture all the same."""

    def uncountable(*_: Any) -> None:
        raise RuntimeError("no such operation on shapes")

    telling, model = part("nodes.host.guide.telling"), own()
    with mock.patch.object(telling, "share_of_unguided", uncountable), warnings(logging.INFO) as said:
        sampled(guided(model[0], PLAN), model, 2.0)
    return said


CASES: dict[str, Callable[[], Any]] = {f"unconditional, {name}": partial(unconditional, name) for name in MODELS}
CASES |= {
    "attention guidance": attention_guidance,
    "overridden": overridden,
    "unguided": unguided,
    "one condition": one_condition,
    "uncounted": uncounted,
}
