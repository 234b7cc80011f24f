"""Runs inside a host's Python, without a server: python guiding.py CHECKOUT PACK CHECKPOINT [CASE ...], for
`hosted_pack.report`.

Guided runs beside what the host and other nodes do in the same sampling: their hooks, their latents, their sigmas.
"""

import contextlib
import logging
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any
from unittest import mock

from hosted_pack import load_pack, report

checkout, pack, checkpoint, *wanted = sys.argv[1:]
part = load_pack(checkout, pack, "--use-pytorch-cross-attention")

import comfy.model_management  # noqa: E402
import comfy.samplers  # noqa: E402
import torch  # noqa: E402
from comfy_extras.nodes_slg import SkipLayerGuidanceDiTSimple  # noqa: E402
from probing import error  # noqa: E402
from torch import Tensor  # noqa: E402
from zoo import ZOO, build, conditions, latent  # noqa: E402

adapter_of, guided = part("nodes.host.adapters").adapter_of, part("nodes.host.guide.patch").guided
SparseGuider, Match = part("nodes.host.guide.guider").SparseGuider, part("nodes.match").SparseGuidanceMatch
Route, Sparsity = part("sparse_model.method.sparsity").Route, part("sparse_model.method.sparsity").Sparsity
Branch, RULES = part("sparse_model.method.branches").Branch, part("sparse_model.method.guidance").RULES
constant, Curve = part("sparse_model.method.schedule").constant, part("sparse_model.method.schedule").Curve

CFG = 4.0


class Denoise(comfy.samplers.Sampler):
    """A sampler that evaluates the model once, and returns its denoised prediction."""

    def sample(self, model: Any, sigmas: Tensor, extra_args: dict, callback: Any, noise: Tensor, *_: Any) -> Tensor:
        return model(noise, sigmas[:1].expand(len(noise)), **extra_args)


def skip_layers() -> dict[str, Any]:
    """SG beside CFG behind the host's SkipLayerGuidanceDiTSimple: CFG is that node's, and SG's pull is what it is
    without it. And Sparse Guidance Match there."""
    animal = ZOO["SD3"]
    x, positive, negative = latent(animal), conditions(animal, 1), conditions(animal, 3)
    route = adapter_of(build(animal)).routed(Sparsity((Route(1, 3),)))
    simple = SkipLayerGuidanceDiTSimple.execute(route, 0.0, 1.0, double_layers="2", single_layers="")[0]
    plan = constant(0.25, 0.75, 3.0, "SG beside CFG")

    def denoised(guider: Any) -> Tensor:
        return guider.sample(x, torch.zeros_like(x), Denoise(), torch.tensor([0.7, 0.0]), disable_pbar=True, seed=9)

    def stock(model: Any) -> Tensor:
        guider = comfy.samplers.CFGGuider(model)
        guider.set_conds(positive, negative)
        guider.set_cfg(CFG)
        return denoised(guider)

    pull = stock(guided(route, plan)) - stock(guided(route, constant(0.25, 0.75, 1.0, "SG beside CFG")))
    expected = stock(guided(simple, constant(0.25, 0.75, 1.0, "SG beside CFG"))) + pull
    matched = Match.execute(simple, positive, {"samples": x * 0}, CFG, "HPSv3", 9, 3, negative, constant(0.25, 0.75, 2))
    return {
        "effect": error(stock(simple), stock(route)),
        "pull": error(expected, expected - pull),
        "patch": error(stock(guided(simple, plan)), expected),
        "guider": error(denoised(SparseGuider(simple, plan, positive, negative, None, CFG)), expected),
        "matched": matched.result[1],
    }


def lines_of(info: mock.Mock) -> list[str]:
    """What was said of the cost of a run."""
    said = [call.args[0] % call.args[1:] for call in info.call_args_list]
    return [text for text in said if " s per step" in text]


def told(
    steps: int = 10,
    sampler: str = "euler",
    scheduler: str = "simple",
    denoise: float = 1.0,
    part_of: slice = slice(None),
) -> list[dict[str, Any]]:
    """What a patched model and Sparse Guider say that a run cost of which the first half is guided, and what it cost by
    the rows that the network was given."""
    model = part("nodes.host.own.loading").load(checkpoint)
    plan = replace(constant(0.25, 0.75, 2.0), end=0.5)
    way = comfy.samplers.KSampler(model, steps, model.load_device, sampler, scheduler, denoise)
    x, label = torch.zeros(1, 3, 16, 16), torch.tensor([[[1.0, 0.0, 1.0]]])
    count = adapter_of(model).counter(tuple(x.shape), 1)
    strong, weak = RULES["SG"].branches(plan.at(0.0))
    costs, found = {1: count((strong,)), 2: count((strong, weak))}, []
    stock = comfy.samplers.CFGGuider(guided(model, plan))
    stock.set_conds([[label, {}]], [[label * 0, {}]])
    stock.set_cfg(2.0)
    for guider in (stock, SparseGuider(model, plan, [[label, {}]])):
        rows, noise = [], torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
        handle = model.model.diffusion_model.register_forward_pre_hook(
            lambda _, args, rows=rows: rows.append(len(args[0]))
        )
        with mock.patch.object(logging, "info") as info:
            guider.sample(
                noise, x, comfy.samplers.sampler_object(sampler), way.sigmas[part_of], disable_pbar=True, seed=9
            )
        handle.remove()
        (line,) = lines_of(info)
        share = sum(costs[number] for number in rows) / (2 * count((Branch(),)) * len(rows))
        found.append({"line": line, "share": f"{share:.0%}", "rows": rows})
    return found


def interrupted() -> list[str]:
    """What is said of a run that ends before its last step."""
    model, label = part("nodes.host.own.loading").load(checkpoint), torch.tensor([[[1.0, 0.0, 1.0]]])
    guider = SparseGuider(model, constant(0.25, 0.75, 2.0), [[label, {}]])

    def stop(step: int, *_: Any) -> None:
        if step == 1:
            raise comfy.model_management.InterruptProcessingException

    x = torch.zeros(1, 3, 16, 16)
    with (
        mock.patch.object(logging, "info") as info,
        contextlib.suppress(comfy.model_management.InterruptProcessingException),
    ):
        guider.sample(
            x + 1, x, comfy.samplers.sampler_object("euler"), torch.linspace(1, 0, 5), callback=stop, disable_pbar=True
        )
    return lines_of(info)


def latent_of_a_weak_model() -> dict[str, Any]:
    """The latent that a model and its weaker one are told about, as concat_cond of inpainting models uses it: an image,
    and none."""
    animal, seen = ZOO["SD3"], {}
    main, weak = build(animal), build(animal, seed=1)
    x, positive = latent(animal), conditions(animal, 1)
    for name, patcher in (("main", main), ("weak", weak)):
        own = patcher.model.extra_conds

        def told(own: Callable = own, name: str = name, **kwargs: Any) -> dict[str, Any]:
            seen[name] = kwargs["latent_image"]
            return own(**kwargs)

        patcher.model.extra_conds = told
    guider = SparseGuider(main, constant(0, 0, 2.0, "AG"), positive, None, weak)
    found = {}
    for case, image in {"image": x, "empty": x * 0}.items():
        guider.sample(x, image, Denoise(), torch.tensor([0.7, 0.0]), denoise_mask=x[:, :1] * 0 + 1, disable_pbar=True)
        found[case] = [torch.equal(seen["main"], seen["weak"]), torch.equal(seen["main"], image)]
    told_shapes = [getattr(patcher.model, "latent_shapes", None) for patcher in (main, weak)]
    return {**found, "shapes": told_shapes[0] == told_shapes[1]}


def no_negative() -> dict[str, Any]:
    """Rows per evaluation of SG beside CFG at cfg 1 without a negative, where another node asks for one."""
    model, label = part("nodes.host.own.loading").load(checkpoint), torch.tensor([[[1.0, 0.0, 1.0]]])
    asking, x, rows, pictures = model.clone(), torch.zeros(1, 3, 16, 16), [], []
    asking.set_model_sampler_post_cfg_function(lambda args: args["denoised"], disable_cfg1_optimization=True)
    handle = model.model.diffusion_model.register_forward_pre_hook(lambda _, args: rows.append(len(args[0])))
    for patcher in (model, asking):
        guider = SparseGuider(patcher, constant(0.25, 0.75, 2.0, "SG beside CFG"), [[label, {}]])
        pictures.append(
            guider.sample(x + 1, x, comfy.samplers.sampler_object("euler"), torch.linspace(1, 0, 3), seed=9)
        )
    handle.remove()
    return {"rows": rows, "equal": torch.equal(*pictures)}


def counted_once() -> dict[str, int]:
    """How often a step of 50 is counted, and how many omegas there are."""
    animal, costs = ZOO["FLUX.1"], part("nodes.host.cost")
    route = adapter_of(build(animal)).routed(Sparsity((Route(1, 3),)))
    plan = replace(constant(0.25, 0.75, 2.0), omega=Curve.linear(1.5, 3.0))
    with mock.patch.object(costs, "cost_of", wraps=costs.cost_of) as counting:
        steps = costs.step_costs(route, plan, costs.even(50), animal.latent, 5)
    return {"counted": counting.call_count, "omegas": len({step.now.omega for step in steps})}


def sheet() -> list[float]:
    """The cost of a picture on a sheet at denoise 0.3 under a plan that guides the first half, and that of its strong
    branch alone."""
    model, label = part("nodes.host.own.loading").load(checkpoint), torch.tensor([[[1.0, 0.0, 1.0]]])
    sheets, latent_image = part("nodes.host.guide.sheet"), {"samples": torch.zeros(1, 3, 16, 16)}
    sampling = {"seed": 9, "sampler_name": "heun", "scheduler": "simple", "denoise": 0.3}
    made = sheets.Sheet(model, [[label, {}]], None, None, latent_image, sampling)
    setting = sheets.Setting(replace(constant(0.25, 0.75, 2.0), end=0.5), 4)
    made.make([setting])
    count = adapter_of(model).counter((1, 3, 16, 16), 1)
    return [made.made[setting].cost, count((Branch(0.25),)) / count((Branch(),))]


CASES: dict[str, Callable[[], Any]] = {
    "skip layers": skip_layers,
    "simple": told,
    "denoise": partial(told, denoise=0.3),
    "karras": partial(told, scheduler="karras"),
    "heun": partial(told, sampler="heun"),
    "split": partial(told, part_of=slice(3, 8)),
    "interrupted": interrupted,
    "counted once": counted_once,
    "sheet": sheet,
    "no negative": no_negative,
    "latent of a weak model": latent_of_a_weak_model,
}
report(CASES, wanted)
