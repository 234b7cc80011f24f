"""Pictures per second over (gamma_strong, gamma_weak), the map of figure A1 of arXiv 2601.01608.

python benchmarks/throughput_map.py                                                          a CPU: SiT-B/2, coarse
python benchmarks/throughput_map.py --device cuda --compile blocks --model TR-DiT-2.5B --every 0.05
"""

import argparse
import itertools
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
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
    network_of,
    ratio,
    spec_of,
)
from sparse_model.method.schedule import constant


def draw(path: Path, gammas: list[float], faster: np.ndarray, title: str) -> None:
    """faster[i, j] at gamma_strong i and gamma_weak j, empty where the weak branch would not be the sparser one."""
    figure, axes = plt.subplots(figsize=(6.4, 5.2), layout="constrained")
    picture = axes.imshow(faster, origin="lower", cmap="viridis")
    for i, j in itertools.product(range(len(gammas)), repeat=2):
        if np.isfinite(faster[i, j]) and len(gammas) <= 12:
            axes.text(j, i, f"{faster[i, j]:.2f}", ha="center", va="center", color="white")
    ticks = range(0, len(gammas), max(1, len(gammas) // 10))
    labels = [f"{gammas[i]:g}" for i in ticks]
    axes.set_xticks(ticks, labels)
    axes.set_yticks(ticks, labels)
    axes.set(xlabel="gamma weak", ylabel="gamma strong", title=title)
    figure.colorbar(picture, label="times faster than CFG")
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="SiT-B/2")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--every", type=float, default=0.2, help="spacing of gamma (%(default)s)")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--steps", type=int, help="steps of a picture; default: the model's own")
    parser.add_argument("--compile", nargs="?", const="network", choices=COMPILED)
    parser.add_argument("--toy", action="store_true", help="the same parts, tiny")
    options = parser.parse_args()
    spec = spec_of(options.model, options.toy)
    network = network_of(spec, options.device, getattr(torch, options.dtype))
    compile_in_place(network, options.compile, dynamic=True)
    gammas = [round(i * options.every, 4) for i in range(round(1 / options.every))]
    pairs = [(strong, weak) for strong, weak in itertools.product(gammas, repeat=2) if strong < weak]
    runs = {f"{s:g} {w:g}": Step(network, spec, constant(s, w, 1.5), options.batch) for s, w in pairs}
    times = alternate({"CFG": Step(network, spec, CFG, options.batch), **runs}, options.rounds)
    faster = np.full((len(gammas), len(gammas)), np.nan)
    rows = []
    for (strong, weak), name in zip(pairs, runs, strict=True):
        value = ratio(times, "CFG", name)
        faster[gammas.index(strong), gammas.index(weak)] = value
        speed = options.batch / ((options.steps or spec.steps) * statistics.median(times[name]))
        rows.append({
            "gamma strong": strong,
            "gamma weak": weak,
            "times faster than CFG": round(value, 3),
            "pictures per second": round(speed, 3),
        })  # fmt: skip
        print(f"gamma {strong:g} / {weak:g}: {value:.2f} times faster than CFG, {speed:.3f} pictures/s")
    path = keep("throughput_map", rows, model=options.model, batch=options.batch, dtype=options.dtype)
    title = f"{options.model}, batch {options.batch}, {options.dtype}\n{machine()}"
    draw(path.with_suffix(".png"), gammas, faster, title)
    print(path)


if __name__ == "__main__":
    main()
