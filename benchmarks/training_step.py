"""How long a step of training takes at several batches, and how much of it a GPU is busy.

python benchmarks/training_step.py icons-64.npz --config icons-64 --batches 512 1024 2048

A step that takes longer than the GPU is busy waits for its operations to be launched: then a larger batch is nearly
free.
"""

import argparse
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.timing import keep, wait
from sparse_model.training.config import CONFIGS, changed
from sparse_model.training.data import load_fitting
from sparse_model.training.loop import Run

PROFILED = 4


def measured(run: Run, rounds: int) -> dict[str, Any]:
    """The step of a run as it is set, the first ones thrown away: they compile."""
    for _ in range(max(rounds // 2, 2)):
        run.train_step()
    wait()
    started = time.perf_counter()
    for _ in range(rounds):
        run.train_step()
    wait()
    seconds = (time.perf_counter() - started) / rounds
    row = {"batch": run.config.batch, "ms": round(1e3 * seconds, 2), "pictures/s": round(run.config.batch / seconds)}
    if torch.cuda.is_available():
        with profile(activities=[ProfilerActivity.CUDA]) as found:
            for _ in range(PROFILED):
                run.train_step()
            wait()
        events = [event for event in found.key_averages() if event.self_device_time_total > 0]
        row["GPU busy ms"] = round(sum(event.self_device_time_total for event in events) / 1e3 / PROFILED, 2)
        row["launches"] = round(sum(event.count for event in events) / PROFILED)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="pictures to train on, as for `train`")
    parser.add_argument("--config", default="icons-64", choices=CONFIGS)
    parser.add_argument("--batches", type=int, nargs="+", default=[512, 1024, 2048])
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="as for `train`")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--name", default="training_step")
    options = parser.parse_args()
    config, pictures = load_fitting(options.data, changed(options.config, options.set))
    with tempfile.TemporaryDirectory() as folder:
        run = Run(config, pictures, Path(folder))
        rows = []
        for batch in options.batches:
            torch._dynamo.reset()  # every batch has graphs of its own, and torch.compile stops at eight
            run.config = replace(config, batch=batch)
            rows.append(measured(run, options.rounds))
            print(rows[-1], flush=True)
    keep(options.name, rows, config=options.config)


if __name__ == "__main__":
    main()
