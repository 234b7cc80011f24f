"""How the advantage over CFG grows with resolution and batch.

python benchmarks/scaling.py                                                                   a CPU: SiT-B/2
python benchmarks/scaling.py --device cuda --compile blocks --model SiT-XL/2 --sizes 32 64 128 --batches 1 4 16
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from matplotlib import pyplot as plt

from benchmarks.timing import (
    CFG,
    COMPILED,
    Step,
    alternate,
    compile_in_place,
    keep,
    machine,
    multiply_adds,
    network_of,
    ratio,
    spec_of,
)
from sparse_model.method.schedule import PRESETS

SG = PRESETS["SG_FLOPS"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="SiT-B/2")
    parser.add_argument("--sizes", nargs="+", type=int, default=[16, 32, 64], help="sides of the network's input")
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 4])
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--compile", nargs="?", const="network", choices=COMPILED)
    parser.add_argument("--toy", action="store_true", help="the same parts, tiny")
    options = parser.parse_args()
    spec = spec_of(options.model, options.toy)
    network = network_of(spec, options.device, getattr(torch, options.dtype))
    rows = []
    for batch in options.batches:
        for size in options.sizes:
            compile_in_place(network, options.compile, dynamic=False)  # anew: a function is given up after 8 shapes
            runs = {label: Step(network, spec, plan, batch, size) for label, plan in (("CFG", CFG), ("SG", SG))}
            faster = ratio(alternate(runs, options.rounds), "CFG", "SG")
            promised = multiply_adds(spec, CFG, size) / multiply_adds(spec, SG, size)
            tokens = spec.config.tokens(size, size)
            rows.append({
                "batch": batch,
                "tokens": tokens,
                "times faster than CFG": round(faster, 3),
                "promised": round(promised, 3),
            })  # fmt: skip
            print(f"batch {batch}, {tokens} tokens: {faster:.2f} times faster than CFG, promised {promised:.2f}")
    path = keep("scaling", rows, model=options.model, dtype=options.dtype)
    figure, axes = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
    for batch in options.batches:
        own = [row for row in rows if row["batch"] == batch]
        axes.plot(
            [row["tokens"] for row in own], [row["times faster than CFG"] for row in own], "o-", label=f"batch {batch}"
        )
    axes.plot([row["tokens"] for row in own], [row["promised"] for row in own], "k--", label="multiply-adds")
    axes.set(xscale="log", xlabel="tokens", ylabel="times faster than CFG", title=f"{options.model}, {machine()}")
    axes.legend()
    figure.savefig(path.with_suffix(".png"), dpi=120)
    print(path)


if __name__ == "__main__":
    main()
