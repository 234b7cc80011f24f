"""The ways to run one step on a GPU, side by side: as it is, blocks or the network compiled, each with a CUDA graph.

python benchmarks/modes.py --device cuda --model TR-DiT-2.5B --batches 1 8
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from torch import Tensor, nn

from benchmarks.timing import CFG, Step, alternate, compile_in_place, keep, network_of, peak, ratio, spec_of
from sparse_model.checkpoints.spec import ModelSpec

MODES: dict[str, tuple[str | None, dict[str, Any]]] = {
    "eager": (None, {}),
    "eager, CUDA graph": (None, {}),
    "blocks": ("blocks", {"dynamic": False}),
    "blocks, CUDA graph": ("blocks", {"dynamic": False}),
    "network": ("network", {"dynamic": False}),
    "network, reduce-overhead": ("network", {"dynamic": False, "mode": "reduce-overhead"}),
}
"""What is compiled, and how; the quick ones first."""


class Captured:
    """A step as one CUDA graph: before each replay its kept tokens are copied to where the graph reads them."""

    def __init__(self, step: Step):
        self.step, self.given = step, step.prepared()
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # kernels are chosen and compiled before the capture
            for _ in range(3):
                self._run()
        torch.cuda.current_stream().wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.output = self._run()

    def _run(self) -> Tensor:
        return self.step.network(self.step.x, self.step.t, self.step.y, self.given)

    def __call__(self) -> Tensor:
        for route, drawn in zip(self.given.kept, self.step.prepared().kept, strict=True):
            for place, index in zip(route, drawn, strict=True):
                place.copy_(index)
        self.graph.replay()
        return self.output


def prepared_way(mode: str, step: Step) -> Callable[[], Tensor]:
    """A step under a mode; its network is compiled already."""
    if mode.endswith("CUDA graph"):
        return Captured(step)
    if mode.endswith("reduce-overhead"):
        return lambda: (torch.compiler.cudagraph_mark_step_begin(), step())[1]
    return step


def measure(mode: str, network: nn.Module, spec: ModelSpec, batch: int, rounds: int) -> dict[str, Any]:
    """One row; what fails is a row as well, with the reason."""
    what, options = MODES[mode]
    row: dict[str, Any] = {"mode": mode, "batch": batch}
    try:
        compile_in_place(network, what, **options)
        schedules = {"CFG": CFG, "SG": spec.schedule}
        with torch.inference_mode():
            steps = {name: Step(network, spec, schedule, batch) for name, schedule in schedules.items()}
            with torch.compiler.set_stance("force_eager"):
                expected = steps["SG"]()
            steps["SG"].step -= 1  # the same kept tokens again
            started = time.perf_counter()
            runs = {name: prepared_way(mode, step) for name, step in steps.items()}
            if isinstance(runs["SG"], Captured):
                steps["SG"].step -= 1
            found = runs["SG"]().clone()
            runs["CFG"]()
            ready = time.perf_counter() - started
        times = alternate(runs, rounds)
        medians = {name: statistics.median(values) for name, values in times.items()}
        return row | {
            "seconds to get ready": round(ready, 1),
            "ms": {name: round(1e3 * value, 3) for name, value in medians.items()},
            "times faster than CFG": round(ratio(times, "CFG", "SG"), 3),
            "pictures per second": {name: round(batch / spec.steps / value, 3) for name, value in medians.items()},
            "peak MiB": {name: peak(run) for name, run in runs.items()},
            "difference": float((found - expected).norm() / expected.norm()),
        }
    except Exception as error:  # a backend that cannot do it is a finding; the other modes go on
        return row | {"failed": f"{type(error).__name__}: {error}".splitlines()[0][:200]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="SiT-XL/2")
    parser.add_argument("--batches", nargs="+", type=int, default=[1])
    parser.add_argument("--modes", nargs="+", default=list(MODES), choices=list(MODES))
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--toy", action="store_true", help="the same parts, tiny")
    parser.add_argument("--name", default="modes", help="results/NAME.json")
    options = parser.parse_args()
    spec = spec_of(options.model, options.toy)
    rows = []
    for mode in options.modes:
        network = network_of(spec, options.device, getattr(torch, options.dtype))
        for batch in options.batches:
            rows.append(row := {"model": options.model} | measure(mode, network, spec, batch, options.rounds))
            print(row, flush=True)
            path = keep(options.name, rows, dtype=options.dtype)
        del network
    print(path)


if __name__ == "__main__":
    main()
