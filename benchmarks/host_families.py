# ruff: noqa: E402 (the host decides what can be imported, and when)
"""Every family of the host's own transformers under a token route on a GPU, each beside the CPU in float32: both
branches of Sparse Guidance, and gamma 0 against the model without a route.

    COMFYUI_PYTHON benchmarks/host_families.py COMFYUI_PATH --device cuda

Small models of random weights, those of the tests. Ends with an error if one is further off than rounding explains.
"""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

PACK = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PACK / "tests" / "host"))
from hosted_pack import load_pack

TOLERANCE = 1e-4
"""How far off, of the prediction's own size, rounding alone brings it."""

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("checkout", type=Path)
parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
options, command = parser.parse_args(), sys.argv

os.environ["COMFYUI_FLAGS"] = "" if options.device == "cuda" else "--cpu"
part = load_pack(str(options.checkout.expanduser()), str(PACK), "--use-pytorch-cross-attention")

import comfy.model_management as management
import torch
from comfy.model_patcher import ModelPatcher
from probing import error, predictions, same
from zoo import ZOO, Animal, build, conditions, latent

sys.argv = command
sys.path.append(str(PACK))  # behind the host, which has a top-level module nodes of its own
from benchmarks.timing import keep

guided, adapter_of = part("nodes.host.guide.patch").guided, part("nodes.host.adapters").adapter_of
constant, sparsity = part("sparse_model.method.schedule").constant, part("sparse_model.method.sparsity")


def measure(patcher: ModelPatcher, animal: Animal) -> dict[str, Any]:
    """The largest error of each branch on the device, and whether gamma 0 is the model without a route, bit for bit."""
    x, positive, negative = latent(animal), conditions(animal, 1), conditions(animal, 3)
    plan, nothing = constant(0.25, 0.75, 2.0), constant(0.0, 0.0, 2.0, "CFG + SG")

    def sparse(model: ModelPatcher) -> ModelPatcher:
        return adapter_of(model).routed(sparsity.Sparsity((sparsity.Route(1, -2),)))

    expected = predictions(guided(sparse(patcher), plan), positive, None, x, 2.0)
    there = ModelPatcher(patcher.model, management.get_torch_device(), torch.device("cpu"))
    there.model.device = there.load_device
    found = predictions(guided(sparse(there), plan), positive, None, x, 2.0)
    plain = predictions(there, positive, negative, x, 2.0)
    dense = predictions(guided(sparse(there), nothing), positive, negative, x, 2.0)
    errors = [error(a.cpu(), b) for a, b in zip(found, expected, strict=True)]
    return {"strong": errors[0], "weak": errors[1], "gamma 0": same(plain, dense)}


def main() -> None:
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    rows, wrong = [], []
    for name, animal in ZOO.items():
        patcher = build(animal)
        if patcher is None:  # not in this host
            continue
        try:
            found = measure(patcher, animal)
        except Exception as problem:  # one family does not keep the others from being measured
            found = {"strong": None, "weak": None, "gamma 0": False, "raised": repr(problem)}
        rows.append({"family": name, **found})
        print(rows[-1], flush=True)
        if not found["gamma 0"] or max(found["strong"], found["weak"]) >= TOLERANCE:
            wrong.append(f"WRONG: {rows[-1]}")
    print(keep("host_families", rows, device=options.device))
    if wrong:
        raise SystemExit("\n".join(wrong))


main()
