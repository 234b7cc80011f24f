"""Where the time of a step goes: attention, matrix products, gather and scatter; launches; how busy the GPU is.

python benchmarks/profile_step.py --device cuda --models SiT-XL/2 TR-DiT-2.5B --batches 1 8
"""

import argparse
import statistics
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.timing import CFG, COMPILED, Step, alternate, compile_in_place, keep, network_of, spec_of

SHARES = {
    "attention": ("aten::scaled_dot_product_attention",),
    "matrix products": ("aten::linear", "aten::conv2d"),
    "gather and scatter": ("aten::index_select", "aten::index_copy", "aten::sort"),
}
"""Operators whose time, with all that they call, is counted; what is compiled into other kernels is not found there."""

LAUNCHES = "cudaLaunchKernel", "cuLaunchKernel", "cudaGraphLaunch"


def profiled(step: Step, steps: int) -> dict[str, Any]:
    """Shares of the time of kernels, or of operators on a CPU, and counts per step."""
    on_gpu = step.x.is_cuda
    kinds = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * on_gpu
    with torch.inference_mode(), profile(activities=kinds) as profiler:
        for _ in range(steps):
            step()
        if on_gpu:
            torch.cuda.synchronize()
    found = profiler.key_averages()
    own, whole = (
        ("self_device_time_total", "device_time_total") if on_gpu else ("self_cpu_time_total", "cpu_time_total")
    )
    total = sum(getattr(event, own) for event in found if not on_gpu or _is_kernel(event))
    row = {"kernels, ms" if on_gpu else "operators, ms": round(total / 1e3 / steps, 3)}
    for share, names in SHARES.items():
        row[share] = round(sum(getattr(event, whole) for event in found if event.key in names) / total, 4)
    launches = sum(event.count for event in found if event.key.startswith(LAUNCHES))
    return row | {"launches": launches / steps if on_gpu else None}


def _is_kernel(event: Any) -> bool:
    """Whether an event is one of the GPU's own, and not a span of several that somebody named."""
    return event.device_type.name == "CUDA" and not event.is_user_annotation


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["SiT-XL/2"])
    parser.add_argument("--batches", nargs="+", type=int, default=[1])
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps", type=int, default=10, help="steps that are profiled")
    parser.add_argument("--compile", nargs="?", const="network", choices=COMPILED)
    parser.add_argument("--toy", action="store_true", help="the same parts, tiny")
    parser.add_argument("--name", default="profile", help="results/NAME.json")
    options = parser.parse_args()
    rows = []
    for name in options.models:
        spec = spec_of(name, options.toy)
        network = network_of(spec, options.device, getattr(torch, options.dtype))
        for batch in options.batches:
            compile_in_place(network, options.compile, dynamic=False)
            steps = {label: Step(network, spec, plan, batch) for label, plan in (("CFG", CFG), ("SG", spec.schedule))}
            times = alternate(steps, options.steps)
            for label, step in steps.items():
                row = {"model": name, "batch": batch, "plan": label} | profiled(step, options.steps)
                row["step, ms"] = round(1e3 * statistics.median(times[label]), 3)
                rows.append(row)
                print(row, flush=True)
            path = keep(options.name, rows, compiled=options.compile, dtype=options.dtype)
    print(path)


if __name__ == "__main__":
    main()
