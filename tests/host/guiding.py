"""Runs inside a host's Python, without a server: python guiding.py CHECKOUT PACK CHECKPOINT [CASE ...], for
`hosted_pack.report`.

Guided runs beside what the host and other nodes do in the same sampling: their hooks, their latents, their sigmas.
"""

import sys
from typing import Any

from hosted_pack import load_pack, report

checkout, pack, checkpoint, *wanted = sys.argv[1:]
part = load_pack(checkout, pack, "--use-pytorch-cross-attention")

import comfy.samplers  # noqa: E402
import torch  # noqa: E402
from comfy_extras.nodes_slg import SkipLayerGuidanceDiTSimple  # noqa: E402
from probing import error  # noqa: E402
from torch import Tensor  # noqa: E402
from zoo import ZOO, build, conditions, latent  # noqa: E402

adapter_of, guided = part("nodes.host.adapters").adapter_of, part("nodes.host.guide.patch").guided
SparseGuider, Match = part("nodes.host.guide.guider").SparseGuider, part("nodes.match").SparseGuidanceMatch
Route, Sparsity = part("sparse_model.method.sparsity").Route, part("sparse_model.method.sparsity").Sparsity
constant = part("sparse_model.method.schedule").constant

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


report({"skip layers": skip_layers}, wanted)
