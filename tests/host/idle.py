"""Runs inside a host's Python, without a server: python idle.py CHECKOUT PACK CHECKPOINT [CASE ...], for
`hosted_pack.report`.

Runs that come out as if Sparse Guidance, or a part of it, were not there, and what they say.
"""

import importlib
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

sys.path.append(str(Path(__file__).resolve().parent / "beside"))

from hosted_pack import report

setting = importlib.import_module("setting")  # the host can be imported from here on
part, own, sampled, constant, guided = setting.part, setting.own, setting.sampled, setting.constant, setting.guided

import comfy.samplers  # noqa: E402
import torch  # noqa: E402
from comfy_extras.nodes_custom_sampler import Guider_DualCFG  # noqa: E402
from comfy_extras.nodes_slg import SkipLayerGuidanceDiTSimple  # noqa: E402
from probing import SEED, message  # noqa: E402
from torch import Tensor  # noqa: E402

Curve = part("sparse_model.method.schedule").Curve
PRESETS = part("sparse_model.method.schedule").PRESETS
Match, Report = part("nodes.match").SparseGuidanceMatch, part("nodes.report").SparseGuidanceReport
Simple = part("nodes.simple").SparseGuidanceSimple
MODEL = own()


def told(act: Callable[[], Tensor]) -> tuple[Tensor, list[str]]:
    """What an act makes, and what it says."""
    with setting.warnings() as said:
        made = act()
    return made, [text.removeprefix("Sparse Guidance: ") for text in said if text.startswith("Sparse Guidance: ")]


def same(made: Tensor, plain: Tensor) -> bool:
    """Whether two predictions of the same tokens in one batch made the picture of one: some processors round them
    differently."""
    return torch.allclose(made, plain, atol=1e-4)


def own_guider(model: Any, plan: Any, sigmas: Tensor) -> Tensor:
    """Euler steps with Sparse Guider."""
    _, x, positive, negative = MODEL
    guider = setting.SparseGuider(model, plan, positive, negative)
    start, sampler = torch.zeros_like(x), comfy.samplers.sampler_object("euler")
    return guider.sample(x, start, sampler, sigmas, disable_pbar=True, seed=SEED)


def missed() -> dict[str, Any]:
    """Plans that no step falls into, with a patch and with a guider: what is said, and whether the picture is that of
    no guidance."""
    model, found = MODEL[0], {}
    plain = {steps: sampled(model, MODEL, 1.0, steps) for steps in (3, 5, 20)}
    for steps in (5, 20):
        made, said = told(
            lambda steps=steps: sampled(Simple.execute(model, 3.0, 0.01, 0.15, 1.0)[0], MODEL, 1.0, steps)
        )
        found[f"simple, {steps} steps"] = torch.equal(made, plain[steps]), said
    strong, three = constant(0.0, 0.75, 2.0), torch.linspace(1, 0, 4)
    plans = {
        "preset": PRESETS["like Skip Layer Guidance"],
        "between": replace(strong, start=0.4, end=0.41),
        "curve": replace(strong, omega=Curve(((0.0, 1.0), (0.4, 3.0), (0.41, 1.0)), "step"), start=0.2),
        "meant": constant(0.0, 0.75, 1.0),
        "rounded": constant(0.0, 0.06, 2.0),
        "one token": constant(0.0, 0.07, 2.0),
    }
    for name, plan in plans.items():
        made, said = told(lambda plan=plan: own_guider(model, plan, three))
        found[name] = same(made, plain[3]), said
    made, said = told(lambda: sampled(guided(model, plans["between"]), MODEL, 2.0, 3))
    found["patch"] = torch.equal(made, plain[3]), said
    late = replace(strong, end=0.15)
    found["late"] = told(lambda: own_guider(model, late, torch.tensor([0.3, 0.1, 0.0])))[1]
    found["no strength"] = told(lambda: sampled(Simple.execute(model, 0.0, 0.01, 0.15, 1.0)[0], MODEL, 1.0, 5))[1]
    return found


def uncounted() -> dict[str, Any]:
    """A run whose tokens nobody can count ends with its picture, and without a word."""

    def unknown(_: Any) -> None:
        raise RuntimeError("a network of another kind")

    plan = constant(0.0, 0.06, 2.0)
    with mock.patch.object(part("nodes.host.guide.idle"), "adapter_of", unknown):
        made, said = told(lambda: sampled(guided(MODEL[0], plan), MODEL))
    return {"same": same(made, sampled(MODEL[0], MODEL, 1.0)), "said": said}


def replaced() -> dict[str, list[str]]:
    """What a run says whose hook another node has taken the place of, and of which a guider never asks."""
    patched = guided(MODEL[0], constant(0.25, 0.75, 2.0))
    behind = SkipLayerGuidanceDiTSimple.execute(patched, 0.0, 1.0, "1", "1")[0]
    dual = Guider_DualCFG(patched)
    _, x, positive, negative = MODEL
    dual.set_conds(positive, positive, negative)
    dual.set_cfg(2.0, 2.0)
    start, sampler, sigmas = torch.zeros_like(x), comfy.samplers.sampler_object("euler"), torch.linspace(1, 0, 3)
    return {
        "node": told(lambda: sampled(behind, MODEL))[1],
        "guider": told(lambda: dual.sample(x, start, sampler, sigmas, disable_pbar=True, seed=SEED))[1],
    }


def two_plans() -> dict[str, Any]:
    """What is said where a model comes with a plan to a node that has one itself, and whether only that one counts."""
    model, x, positive, negative = MODEL
    plan, other = constant(0.0, 0.75, 2.0), constant(0.25, 0.5, 3.0)
    patched, latent = guided(model, other), {"samples": torch.zeros_like(x)}
    ways = {
        "guider": lambda model: own_guider(model, plan, torch.linspace(1, 0, 3)),
        "patch": lambda model: sampled(guided(model, plan), MODEL),
        "match": lambda model: Match.execute(model, positive, latent, 2.0, "HPSv3", 9, 3, negative, plan).result[1],
    }
    found = {}
    for name, way in ways.items():
        (once, nothing), (twice, said) = (told(lambda way=way, given=given: way(given)) for given in (model, patched))
        same = torch.equal(torch.as_tensor(once), torch.as_tensor(twice))
        found[name] = {"same": same, "said": said, "alone": nothing}
    report = (plan, latent, 4, positive, True)
    found["report"] = told(lambda: Report.execute(patched, *report).result[0])[1]
    return found


def stock_sizes() -> dict[str, Any]:
    """What is said where a stock node is told a size in pixels, on a model of 16 x 16 pixels in patches of 4."""
    model, _, positive, negative = MODEL
    stock, empty = importlib.import_module("nodes"), {"samples": torch.zeros(1, 3, 16, 16)}

    def of(latent: Tensor) -> list[str]:
        return told(lambda: sampled(model, (model, latent, positive, negative), steps=1))[1]

    def upscaled(side: int) -> list[str]:
        return of(stock.LatentUpscale().upscale(empty, "nearest-exact", side, side, "disabled")[0]["samples"])

    def area(node: Any, *values: float) -> list[str]:
        there = node().append(positive, *values, 1.0)[0]
        return told(lambda: sampled(model, (model, empty["samples"], there, negative), steps=1))[1]

    whole, part_of_it = stock.ConditioningSetArea, stock.ConditioningSetAreaPercentage
    return {
        "latent 4": of(torch.zeros(1, 3, 4, 4)),
        "latent 128": upscaled(128),
        "latent 72": message(lambda: upscaled(72)),
        "area 32": area(whole, 32, 32, 0, 0),
        "area 64": area(whole, 64, 64, 0, 0),
        "area 40": message(lambda: area(whole, 40, 64, 0, 0)),
        "a quarter": area(part_of_it, 0.25, 0.25, 0.0, 0.0),
        "a third": message(lambda: area(part_of_it, 0.33, 0.5, 0.0, 0.0)),
    }


def other_ratios() -> dict[str, str | None]:
    """What is said of large and small latents where the host's nodes divide a size as the model does, or by less."""
    own_model, spec, found = part("nodes.host.own.model"), MODEL[0].model.spec, {}
    for latent in ("sdxl", "dcae"):
        given = replace(spec, latent=latent)
        found[latent] = own_model.about_size(given, torch.Size((1, 3, 64, 64)))
        found[f"small, {latent}"] = own_model.about_size(given, torch.Size((1, 3, 4, 4)))
    return found


CASES: dict[str, Callable[[], Any]] = {
    "stock sizes": stock_sizes,
    "other ratios": other_ratios,
    "two plans": two_plans,
    "replaced": replaced,
    "missed": missed,
    "uncounted": uncounted,
}
report(CASES, setting.wanted)
