"""Runs inside a host's Python, without a server: python skip_layers.py CHECKOUT PACK, prints JSON.

The rule SG beside CFG against the host's own skip-layer nodes over the same layers, and against separate runs of its
three branches.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hosted_pack import load_pack

part = load_pack(sys.argv[1], sys.argv[2], "--use-pytorch-cross-attention")
sys.path.insert(0, str(Path(__file__).parent))

import comfy.sample  # noqa: E402
import comfy.samplers  # noqa: E402
import torch  # noqa: E402
from comfy_extras.nodes_slg import SkipLayerGuidanceDiT, SkipLayerGuidanceDiTSimple  # noqa: E402
from torch import Tensor  # noqa: E402
from zoo import ZOO, build, conditions, latent  # noqa: E402

adapter_of, guided = part("nodes.host.adapters").adapter_of, part("nodes.host.guide.patch").guided
SparseGuidanceSimple = part("nodes.simple").SparseGuidanceSimple
SparseGuider = part("nodes.host.guide.guider").SparseGuider
Route, Sparsity = part("sparse_model.method.sparsity").Route, part("sparse_model.method.sparsity").Sparsity
sheets = part("nodes.host.guide.sheet")
schedules = part("sparse_model.method.schedule")
Curve, Schedule, constant = schedules.Curve, schedules.Schedule, schedules.constant

SCALE, START, END, CFG = 2.5, 0.2, 0.7, 4.0


def sampled(guider: Any, x: Any, steps: int = 4) -> Tensor:
    """The picture of a run from the noise x, which may hold a sound as well."""
    sampling = guider.model_patcher.get_model_object("model_sampling")
    sigmas = comfy.samplers.calculate_sigmas(sampling, "simple", steps)
    sampler = comfy.samplers.sampler_object("euler")
    found = guider.sample(x, x * 0, sampler, sigmas, disable_pbar=True, seed=9)
    return found.unbind()[0] if x.is_nested else found


def stock(model: Any, positive: list, negative: list | None, cfg: float) -> Any:
    """The host's CFGGuider, or its BasicGuider where there is no negative."""
    guider = comfy.samplers.CFGGuider(model)
    if negative is None:
        guider.inner_set_conds({"positive": positive})
    else:
        guider.set_conds(positive, negative)
        guider.set_cfg(cfg)
    return guider


def beside(start: float = START, end: float = END, gamma: float = 1.0) -> Any:
    return Schedule(Curve.constant(0.0), Curve.constant(gamma), Curve.constant(1 + SCALE), "SG beside CFG", start, end)


def error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


def family(name: str) -> dict[str, Any] | None:
    """Both of the host's nodes on one small model; None where the host has no such model, or skips none of its
    layers."""
    animal = ZOO[name]
    patcher = build(animal)
    if patcher is None:
        return None
    x, positive, negative = latent(animal, 1), conditions(animal, 1), conditions(animal, 3)
    first = len(getattr(patcher.model.diffusion_model, next(iter(animal.blocks))))
    two = len(animal.blocks) > 1
    layers = (first - 1, first) if two else (1, 2)  # across both stacks where there are two
    skipped = {"double_layers": str(first - 1) if two else "1, 2", "single_layers": "0" if two else ""}
    plain = sampled(stock(patcher, positive, negative, CFG), x)
    full = SkipLayerGuidanceDiT.execute(patcher, SCALE, START, END, **skipped)[0]
    expected = sampled(stock(full, positive, negative, CFG), x)
    if error(expected, plain) < 1e-3:
        return None
    route = adapter_of(patcher).routed(Sparsity((Route(*layers),)))
    ours = sampled(stock(guided(route, beside()), positive, negative, CFG), x)
    alone = sampled(stock(full, positive, negative, 1.0), x)
    simple = SkipLayerGuidanceDiTSimple.execute(patcher, START, END, **skipped)[0]
    null = Schedule(
        Curve.constant(0.0),
        Curve.parse(f"step 0:0, {START}:1, {END}:0"),
        Curve.constant(CFG),
        "CFG + SG",
    )
    simply = {}
    if adapter_of(patcher).short_route.routes[0].layers(adapter_of(patcher).depth) == range(layers[0], layers[1] + 1):
        one_node = SparseGuidanceSimple.execute(patcher, SCALE, START, END, 1.0)[0]
        simply["one node"] = error(sampled(stock(one_node, positive, negative, CFG), x), expected)
    return {
        **simply,
        "effect": error(expected, plain),
        "beside CFG": error(ours, expected),
        "at cfg 1": error(sampled(stock(guided(route, beside()), positive, negative, 1.0), x), alone),
        "BasicGuider": error(sampled(stock(guided(route, beside()), positive, None, 1.0), x), alone),
        "Sparse Guider": error(sampled(SparseGuider(route, beside(), positive, negative, None, CFG), x), expected),
        "Sparse Guider at cfg 1": error(sampled(SparseGuider(route, beside(), positive), x), alone),
        "simple": error(
            sampled(stock(guided(route, null), positive, negative, CFG), x),
            sampled(stock(simple, positive, negative, CFG), x),
        ),
    }


class Probe(comfy.samplers.Sampler):
    """A sampler that evaluates the model once, and returns its denoised prediction."""

    def sample(self, model: Any, sigmas: Tensor, extra_args: dict, callback: Any, noise: Tensor, *_: Any) -> Tensor:
        return model(noise, sigmas[:1].expand(len(noise)), **extra_args)


def branches(name: str) -> dict[str, float]:
    """One evaluation of three branches, against separate runs of CFG, of the strong branch and of SG."""
    animal = ZOO[name]
    patcher = build(animal)
    x, positive, negative = latent(animal), conditions(animal, 1), conditions(animal, 3)
    route = adapter_of(patcher).routed(Sparsity((Route(1, -2),)))

    def evaluated(model: Any, cfg: float) -> Tensor:
        guider = stock(model, positive, negative, cfg)
        return guider.sample(x, torch.zeros_like(x), Probe(), torch.tensor([0.7, 0.0]), disable_pbar=True, seed=9)

    found = {}
    for strong in (0.0, 0.25):
        pair = constant(strong, 0.75, 2.0)
        three = evaluated(guided(route, constant(strong, 0.75, 1 + SCALE, "SG beside CFG")), CFG)
        alone = evaluated(guided(route, pair), 1.0)
        null = evaluated(patcher, 0.0)  # CFG at scale 0 is the negative's own prediction
        cfg = null + CFG * (alone - null)
        sparse = 2 * alone - evaluated(guided(route, pair), 2.0)  # SG at omega 2 is 2 strong - weak
        found[f"gamma strong {strong:g}"] = error(three, cfg + SCALE * (alone - sparse))
    return found


def seen_by_patches(name: str) -> dict[str, Any]:
    """What a patch of CFG is given (RescaleCFG and others set this function)."""
    animal = ZOO[name]
    patcher, seen = build(animal), []
    x, positive, negative = latent(animal), conditions(animal, 1), conditions(animal, 3)

    def formula(args: dict) -> Tensor:
        seen.append((args["cond_denoised"].clone(), args["uncond_denoised"].clone()))
        return args["input"] - (args["uncond_denoised"] + CFG * (args["cond_denoised"] - args["uncond_denoised"]))

    route = adapter_of(patcher).routed(Sparsity((Route(1, -2),)))
    for model in (patcher, guided(route, beside(0.0, 1.0, 0.75))):
        patched = model.clone()
        patched.set_model_sampler_cfg_function(formula)
        sampled(stock(patched, positive, negative, CFG), x, steps=1)
    (plain, ours) = seen
    return {"pair": max(error(a, b) for a, b in zip(ours, plain, strict=True)), "calls": len(seen)}


def on_a_sheet(name: str) -> dict[str, Any]:
    """A model without a route and a negative on a contact sheet: its pictures against samplings of their own."""
    animal = ZOO[name]
    patcher, positive = build(animal), conditions(animal, 1)
    sampling = {"seed": 9, "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0}
    sheet = sheets.Sheet(patcher, positive, None, None, {"samples": torch.zeros(animal.latent)}, sampling)
    alone = sheets.cfg_alone(1.0, 4)
    short = sheets.Setting(beside(), 4)
    longer = sheets.rerouted(patcher, short, end=3)
    sheet.make([alone, short, longer, short])
    noise = comfy.sample.prepare_noise(torch.zeros(1, *animal.latent[1:]), 9)
    moved = adapter_of(patcher).routed(Sparsity((Route(1, 3),)))
    one_node = SparseGuidanceSimple.execute(patcher, SCALE, START, END, 1.0)[0]
    models = {alone: patcher, short: one_node, longer: guided(moved, beside())}
    return {
        "pictures": len(sheet.made),
        "errors": [
            error(sheet.made[setting].latent, sampled(stock(model, positive, None, 1.0), noise))
            for setting, model in models.items()
        ],
        "costs": [sheet.made[setting].cost for setting in models],
        "refused": refusal(lambda: sheet.guider(sheets.cfg_alone(3.0, 4))),
    }


def refusal(act: Callable[[], Any]) -> str:
    try:
        act()
    except ValueError as problem:
        return str(problem)
    return "no error"


if __name__ == "__main__":
    results = {name: found for name in ZOO if (found := family(name)) is not None}
    three = {name: branches(name) for name in ("FLUX.1", "Wan 2.1", "SD3")}
    print(
        json.dumps(
            {
                "families": results,
                "branches": three,
                "patches": seen_by_patches("FLUX.1"),
                "sheet": on_a_sheet("FLUX.1"),
            }
        )
    )
