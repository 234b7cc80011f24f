"""Runs inside a host's Python, without a server: python matching.py CHECKOUT PACK CHECKPOINT [CASE ...], for
`hosted_pack.report`.

Sparse Guidance Match against what is known beforehand, and against the method's own loop.
"""

import itertools
import sys
from functools import partial
from pathlib import Path
from typing import Any

from hosted_pack import load_pack, report

checkout, pack, checkpoint, *wanted = sys.argv[1:]
part = load_pack(checkout, pack, "--use-pytorch-cross-attention")

import comfy.model_management as management  # noqa: E402
import comfy.sample  # noqa: E402
import comfy.samplers  # noqa: E402
import torch  # noqa: E402
from probing import message  # noqa: E402
from torch import Tensor  # noqa: E402
from zoo import ZOO, build, conditions, latent  # noqa: E402

Node, adapter_of = part("nodes.match").SparseGuidanceMatch, part("nodes.host.adapters").adapter_of
guided, Progress = part("nodes.host.guide.patch").guided, part("nodes.host.guide.progress").Progress
Route, Sparsity = part("sparse_model.method.sparsity").Route, part("sparse_model.method.sparsity").Sparsity
constant, subsets = part("sparse_model.method.schedule").constant, part("sparse_model.method.tokens").subsets
matching, sampling = part("sparse_model.method.matching"), part("sparse_model.method.sampling")
branches = part("sparse_model.method.branches")

SEED, STEPS, CFG = 5, 4, 3.0
Model = tuple[Any, Tensor, list, list | None]


def host(name: str) -> Model | None:
    animal = ZOO[name]
    patcher = build(animal)
    if patcher is None:
        return None
    routed = adapter_of(patcher).routed(Sparsity((Route(1, -2),)))
    return routed, torch.zeros_like(latent(animal)), conditions(animal, 1), conditions(animal, 3)


def own() -> Model:
    label = torch.tensor([[[1.0, 0.0, 1.0]]])
    return part("nodes.host.own.loading").load(checkpoint), torch.zeros(2, 3, 16, 16), [[label, {}]], None


def matched(model: Model, plan: Any, cfg: float = CFG) -> tuple[Any, float, str]:
    patcher, x, positive, negative = model
    return Node.execute(patcher, positive, {"samples": x}, cfg, "HPSv3", SEED, STEPS, negative, plan).result


def on(name: str) -> dict[str, Any] | None:
    """CFG + SG that drops nothing is CFG, so it has to come out at CFG's own scale; and SG's omega."""
    model = own() if name == "own" else host(name)
    if model is None:
        return None
    state = model[0].model_options
    plan = constant(0.25, 0.75, 2.0)
    found, omega, text = matched(model, plan)
    return {
        "cfg": matched(model, constant(0, 0, 2.0, "CFG + SG"))[1],
        "omega": omega,
        "schedule": found == plan.with_scale(omega),
        "patched": matched((guided(model[0], constant(0, 0.5, 3.0)), *model[1:]), plan)[1],
        "text": text,
        "kept": model[0].model_options is state and not state.get("sampler_calc_cond_batch_function"),
    }


def by_hand() -> dict[str, float]:
    """The omega of the node, and that of the method's own loop on the same network, noise and tokens."""
    patcher, x, positive, _ = own()
    network, spec = part("sparse_model.checkpoints.checkpoint").load(Path(checkpoint))
    sigmas = comfy.samplers.calculate_sigmas(patcher.get_model_object("model_sampling"), "simple", STEPS)
    path, denoiser = matching.Matching(constant(0.25, 0.75, 2.0)), sampling.Denoiser(network.float(), spec.prediction)
    label = positive[0][0][0].expand(len(x), -1)
    given = {"positive": label, "null": torch.zeros_like(label)}
    noisy, tokens = comfy.sample.prepare_noise(x, SEED), subsets(SEED)
    with torch.inference_mode():
        for number, (sigma, following) in enumerate(itertools.pairwise(sigmas.tolist())):
            moment = Progress(patcher.get_model_object("model_sampling"))(sigma)
            asked, places = path.asked(branches.Evaluation(subsets=tokens.at(number)), moment)
            predictions = denoiser(noisy, sigma, [given[branch.condition] for branch in asked.branches], asked)
            path.looks.append(matching.Look.at(moment, sigma, [predictions[place] for place in places]))
            clean = predictions[1] + CFG * (predictions[0] - predictions[1])
            noisy = noisy + (noisy - clean) / sigma * (following - sigma)
    return {"node": matched(own(), path.schedule)[1], "loop": path.matched(CFG).omega.high}


def sentences() -> dict[str, str]:
    flux, model, plan = host("FLUX.1"), own(), constant(0.25, 0.75, 2.0)
    bare = build(ZOO["FLUX.1"])
    return {
        "cfg": message(lambda: matched(model, plan, 1.0)),
        "dense": message(lambda: matched(model, constant(0, 0, 2.0, "ICG"))),
        "two networks": message(lambda: matched(model, constant(0, 0.5, 2.0, "AG + SG"))),
        "negative": message(lambda: matched((*flux[:3], None), plan)),
        "route": message(lambda: matched((bare, *flux[1:]), plan)),
        "strong": message(lambda: matched(model, constant(0.9, 0.95, 2.0), 1.1)),
    }


def interrupted() -> dict[str, Any]:
    """An interrupt is heard after the step that it falls in; the model samples as before."""
    model, plan, steps = own(), constant(0.25, 0.75, 2.0), []
    before, network = matched(model, plan)[1], model[0].model.diffusion_model

    def count(*_: Any) -> None:
        steps.append(1)
        management.interrupt_current_processing(True)

    handle = network.register_forward_hook(count)
    try:
        matched(model, plan)
        stopped = False
    except management.InterruptProcessingException:
        stopped = True
    finally:
        management.interrupt_current_processing(False)
        handle.remove()
    return {"stopped": stopped, "steps": len(steps), "again": matched(model, plan)[1] == before}


CASES = {name: partial(on, name) for name in ("own", "FLUX.1", "SD3", "Wan 2.1")}
CASES |= {"by hand": by_hand, "sentences": sentences, "interrupted": interrupted}
report(CASES, wanted)
