"""What a sampling step costs beside the network, and which steps wait for the GPU.

python benchmarks/overhead.py --device cuda --models SiT-XL/2 TR-DiT-2.5B

A network that only draws its kept tokens and gives its input back leaves the loop alone: rule, branches, kept tokens,
Euler step. With the real network PyTorch tells of every operation that waits (torch.cuda.set_sync_debug_mode).
"""

import argparse
import sys
import time
import warnings
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from torch import Tensor, nn

from benchmarks.timing import CFG, condition_of, keep, network_of, spec_of, wait
from sparse_model.checkpoints.spec import ModelSpec
from sparse_model.method.sampling import Denoiser, sample
from sparse_model.method.schedule import Schedule, constant
from sparse_model.method.sparsity import Route, Sparsity

BESIDE = constant(0.1, 0.8, 3.0, "SG beside CFG")
"""Three branches, two of which leave out tokens."""


class Nothing(nn.Module):
    """Stands in for a network: prepares the evaluation as every network does, and gives x back."""

    def __init__(self, spec: ModelSpec):
        super().__init__()
        self.config, self.sparsity = spec.config, spec.sparsity

    def forward(self, x: Tensor, t: Tensor, y: object, evaluation: Any) -> Tensor:
        evaluation.prepare(self, x)
        return x


def run(network: nn.Module, spec: ModelSpec, schedule: Schedule, batch: int, like: dict[str, Any], **more: Any) -> None:
    condition = condition_of(spec, batch, like)
    shape = (spec.config.in_channels, spec.config.input_size, spec.config.input_size)
    denoiser = Denoiser(network, spec.prediction)
    sample(denoiser, condition, schedule, shape=shape, steps=spec.steps, null=condition, **more)


def own_time(spec: ModelSpec, schedule: Schedule, batch: int, like: dict[str, Any], cfg: float = 1.0) -> float:
    """Milliseconds per step without the network, the best of five runs after a first."""
    found = []
    for _ in range(6):
        wait()
        started = time.perf_counter()
        run(Nothing(spec), spec, schedule, batch, like, cfg=cfg)
        wait()
        found.append(1e3 * (time.perf_counter() - started) / spec.steps)
    return min(found[1:])


def waiting_steps(
    network: nn.Module, spec: ModelSpec, schedule: Schedule, batch: int, like: dict[str, Any]
) -> dict[int, int] | None:
    """Step -> operations in it that wait for the GPU; step 0 holds what comes before it as well. None without a GPU."""
    if not torch.cuda.is_available():
        return None
    run(network, spec, schedule, batch, like)
    found: Counter[int] = Counter()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")

        def count(step: int, _: Tensor) -> None:
            found[step] += sum("called a synchronizing" in str(warning.message) for warning in told)
            told.clear()

        torch.cuda.set_sync_debug_mode("warn")
        try:
            run(network, spec, schedule, batch, like, callback=count)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return {step: waits for step, waits in found.items() if waits}


def large(spec: ModelSpec) -> ModelSpec:
    """The same on 4,096 tokens, with two routes."""
    config = replace(spec.config, input_size=64 * spec.config.patch_size)
    half = spec.config.depth // 2
    return replace(spec, config=config, sparsity=Sparsity((Route(2, half - 1), Route(half, -2))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["SiT-XL/2"])
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--toy", action="store_true", help="the same parts, tiny")
    parser.add_argument("--name", default="overhead", help="results/NAME.json")
    options = parser.parse_args()
    rows = []
    for name in options.models:
        spec = spec_of(name, options.toy)
        like = {"device": options.device, "dtype": getattr(torch, options.dtype)}
        network = network_of(spec, **like)
        for label, schedule in (("CFG", CFG), ("SG", spec.schedule)):
            asked = (spec, schedule, options.batch, like)
            row = {"model": name, "plan": label, "steps": spec.steps, "own ms per step": round(own_time(*asked), 4)}
            rows.append(row | {"steps that wait": waiting_steps(network, *asked)})
            print(rows[-1], flush=True)
        own = own_time(large(spec), BESIDE, options.batch, like, cfg=2.0)
        row = {"model": f"{name}, 4,096 tokens, two routes", "plan": "SG beside CFG", "steps": spec.steps}
        rows.append(row | {"own ms per step": round(own, 4), "steps that wait": None})
        print(rows[-1], flush=True)
        path = keep(options.name, rows, batch=options.batch, dtype=options.dtype)
    print(path)


if __name__ == "__main__":
    main()
