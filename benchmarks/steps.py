"""Time of a sampling step without guidance, with CFG and with Sparse Guidance, taking turns in one process.

python benchmarks/steps.py                                         two CPU cores: SiT-XL/2
python benchmarks/steps.py --device cuda --compile blocks --batches 1 8 64 --models SiT-S/2 SiT-B/2 SiT-L/2 SiT-XL/2
python benchmarks/steps.py --device cuda --compile blocks --batches 1 8 --models TR-DiT-2.5B HDM PRX
"""

import argparse
import statistics
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch

from benchmarks.timing import (
    CFG,
    COMPILED,
    UNGUIDED,
    Step,
    alternate,
    compile_in_place,
    keep,
    multiply_adds,
    network_of,
    peak,
    ratio,
    spec_of,
)


def measure(name: str, batch: int, options: argparse.Namespace, dtype: torch.dtype) -> dict[str, Any]:
    """One row: times, their ratio to CFG, the ratio that multiply-adds promise, and the share of it that is reached."""
    spec = spec_of(name, options.toy)
    schedules = {"unguided": UNGUIDED, "CFG": CFG, "SG": spec.schedule}
    network, steps = network_of(spec, options.device, dtype), options.steps or spec.steps
    compile_in_place(network, options.compile, dynamic=False)
    runs = {label: Step(network, spec, schedule, batch) for label, schedule in schedules.items()}
    times = alternate(runs, options.rounds)
    faster = ratio(times, "CFG", "SG")
    promised = multiply_adds(spec, CFG) / multiply_adds(spec, schedules["SG"])
    medians = {label: statistics.median(values) for label, values in times.items()}
    return {
        "model": name,
        "batch": batch,
        "dtype": str(dtype).removeprefix("torch."),
        "times faster than CFG": round(faster, 3),
        "promised": round(promised, 3),
        "efficiency": round(faster / promised, 3),
        "times faster than unguided": round(ratio(times, "unguided", "SG"), 3),
        "ms": {label: round(1e3 * value, 2) for label, value in medians.items()},
        "pictures per second": {label: round(batch / (steps * value), 3) for label, value in medians.items()},
        "peak MiB": {label: peak(run) for label, run in runs.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["SiT-XL/2"])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 4])
    parser.add_argument("--dtypes", nargs="+", default=["bfloat16", "float32"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument(
        "--steps", type=int, help="steps of a picture, for pictures per second; default: the model's own"
    )
    parser.add_argument("--compile", nargs="?", const="network", choices=COMPILED)
    parser.add_argument("--toy", action="store_true", help="the same parts, tiny")
    parser.add_argument("--name", default="steps", help="results/NAME.json")
    options = parser.parse_args()
    rows = []
    for name in options.models:
        for dtype in options.dtypes:
            for batch in options.batches:
                rows.append(row := measure(name, batch, options, getattr(torch, dtype)))
                print(
                    f"{name} batch {batch} {dtype}: {row['times faster than CFG']:.2f} times faster than CFG "
                    f"(multiply-adds promise {row['promised']:.2f}, efficiency {row['efficiency']:.2f}), "
                    f"{row['times faster than unguided']:.2f} than unguided; ms {row['ms']}",
                    flush=True,
                )
                path = keep(options.name, rows, compiled=options.compile)  # now: a time limit may end the next row
    print(path)


if __name__ == "__main__":
    main()
