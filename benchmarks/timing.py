"""What the benchmarks share: alternating timing, networks of random weights, and how a result is kept."""

import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from sparse_model.checkpoints.checkpoint import build
from sparse_model.checkpoints.spec import ModelSpec
from sparse_model.conditions.text import Condition, Text
from sparse_model.cost import step_cost
from sparse_model.method.branches import Evaluation
from sparse_model.method.guidance import RULES
from sparse_model.method.schedule import Schedule, constant
from sparse_model.method.sparsity import Route, Sparsity
from sparse_model.method.tokens import subsets
from sparse_model.networks.layers import Backend

RESULTS = Path(__file__).parent / "results"
UNGUIDED, CFG = constant(0, 0, 1, "CFG"), constant(0, 0, 1.5, "CFG")


def spec_of(name: str) -> ModelSpec:
    """A published size with its published route: r 2 -> 24 of an XL/2, 2 -> 8 of a B/2, 2 -> 30 of TR-DiT-2.5B."""
    return ModelSpec.published(name, Sparsity((Route(2, -4),)))


def network_of(spec: ModelSpec, device: str, dtype: torch.dtype) -> nn.Module:
    """The network with small random weights: its time does not depend on them."""
    network = build(spec, Backend(device=device, dtype=dtype)).eval().requires_grad_(False)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.02)
    return network


class Step:
    """One evaluation of a network for one sampling step under a schedule, as the samplers call it."""

    def __init__(self, network: nn.Module, spec: ModelSpec, schedule: Schedule, batch: int, size: int | None = None):
        self.network, parameter = network, next(iter(network.parameters()))
        now, like = schedule.at(0.5), {"device": parameter.device, "dtype": parameter.dtype}
        size = size or spec.config.input_size
        self.branches = RULES[schedule.rule].branches(now)
        rows = len(self.branches) * batch
        self.x, self.t = torch.randn(rows, spec.config.in_channels, size, size, **like), torch.rand(rows, **like)
        self.y = _condition(spec, rows, like)
        self.subsets, self.step = subsets(ahead=64), 0

    def __call__(self) -> Tensor:
        self.step += 1
        evaluation = Evaluation(self.branches, self.subsets.at(self.step))
        return self.network(self.x, self.t, self.y, evaluation.prepare(self.network, self.x))


def _condition(spec: ModelSpec, rows: int, like: Mapping[str, Any]) -> Condition:
    if spec.text is None:
        return torch.nn.functional.one_hot(torch.arange(rows) % 7, spec.config.num_classes).to(**like)
    mask = torch.ones(rows, spec.text.length, dtype=torch.bool, device=like["device"])
    return Text(torch.randn(rows, spec.text.length, spec.text.width, **like), mask)


def alternate(runs: Mapping[str, Callable[[], object]], rounds: int, warmup: int = 2) -> dict[str, list[float]]:
    """Seconds of every call, the runs taking turns, so that a noisy machine is as unkind to one as to the other."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    with torch.inference_mode(), tqdm(total=(rounds + warmup) * len(runs), leave=False) as bar:
        for turn in range(rounds + warmup):
            for name, run in runs.items():
                _wait()
                started = time.perf_counter()
                run()
                _wait()
                if turn >= warmup:
                    times[name].append(time.perf_counter() - started)
                bar.update()
    return times


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def ratio(times: Mapping[str, list[float]], slow: str, fast: str) -> float:
    """How many times as long `slow` takes: the median over rounds, each round compared with itself."""
    return statistics.median(a / b for a, b in zip(times[slow], times[fast], strict=True))


def multiply_adds(spec: ModelSpec, schedule: Schedule, size: int | None = None) -> float:
    """Multiply-adds of a step for one picture, attention products counted."""
    return step_cost(spec, schedule, 1, attention=True, size=size).total


def machine() -> str:
    """The machine in a few words."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{torch.get_num_threads()} threads of {_processor()}"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    names = [line for line in info.read_text().splitlines() if line.startswith("model name")] if info.is_file() else []
    return names[0].split(":", 1)[1].strip() if names else platform.processor() or platform.machine()


def keep(name: str, rows: list[dict[str, Any]], **more: Any) -> Path:
    """Writes benchmarks/results/NAME.json: the rows, and what made them, where and when."""
    RESULTS.mkdir(exist_ok=True)
    record = {
        "command": " ".join(["python", *sys.argv]),
        "machine": machine(),
        "date": date.today().isoformat(),
        "torch": torch.__version__,
        **more,
        "rows": rows,
    }
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(record, indent=1) + "\n")
    return path
