"""What the benchmarks share: alternating timing, networks of random weights, and how a result is kept."""

import json
import os
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import replace
from datetime import date
from pathlib import Path
from types import FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from sparse_model.checkpoints.checkpoint import build
from sparse_model.checkpoints.spec import ModelSpec
from sparse_model.conditions.text import Condition, Text, TextSpec
from sparse_model.cost import step_cost
from sparse_model.method.branches import Evaluation, Prepared
from sparse_model.method.guidance import RULES
from sparse_model.method.prediction import Flow
from sparse_model.method.schedule import PRESETS, Schedule, constant
from sparse_model.method.sparsity import Route, Sparsity
from sparse_model.method.tokens import subsets
from sparse_model.networks.layers import Backend
from sparse_model.networks.prx import PRXConfig
from sparse_model.networks.xut import XUTConfig

RESULTS = Path(os.environ.get("OUT") or Path(__file__).parent / "results")
UNGUIDED, CFG = constant(0, 0, 1, "CFG"), constant(0, 0, 1.5, "CFG")


SHAPES = {
    "HDM": ModelSpec(
        "xut", XUTConfig(), Flow(), Sparsity((Route(1, 1),)), latent="eq-sdxl", schedule=PRESETS["HDM"], steps=24,
        text=TextSpec("qwen3-0.6b", XUTConfig.text_width, 64, padded=False),
    ),
    "PRX": ModelSpec(
        "prx", PRXConfig(), Flow(), Sparsity((Route(2, 12),)), latent="flux", schedule=PRESETS["HPSv3"], steps=28,
        text=TextSpec("t5gemma-2b", PRXConfig.text_width, 256, masked=True),
    ),
}  # fmt: skip
"""Sizes of published models of other families, at their own resolution and with the route of docs/models.md."""

TOYS = {
    "dit": {"num_classes": 10, "depth": 8},
    "trdit": {"text_width": 16, "depth": 8},
    "prx": {"text_width": 16},
    "xut": {"text_width": 16, "hidden": 64, "levels": 2},
}


def spec_of(name: str, toy: bool = False) -> ModelSpec:
    """A published size with its published route (r 2 -> 24 of an XL/2, 2 -> 8 of a B/2, 2 -> 30 of TR-DiT-2.5B), the
    Sparse Guidance that is measured on it, and the steps of a picture.

    A `toy` has the same parts, so narrow and on so few tokens that any machine runs it in milliseconds.
    """
    spec = SHAPES.get(name) or ModelSpec.published(name, Sparsity((Route(2, -4),)))
    if spec.schedule is None:
        spec = replace(spec, schedule=PRESETS["HPSv3" if spec.text else "SG_FLOPS"], steps=50 if spec.text else 40)
    if toy:
        spec = replace(spec, config=replace(spec.config, width=32, heads=2, input_size=16, **TOYS[spec.architecture]))
        if spec.text is not None:
            spec = replace(spec, text=replace(spec.text, width=16, length=8))
    return spec


def network_of(spec: ModelSpec, device: str, dtype: torch.dtype) -> nn.Module:
    """The network with small random weights: its time does not depend on them."""
    network = build(spec, Backend(device=device, dtype=dtype)).eval().requires_grad_(False)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.02)
    return network


def layers_of(network: nn.Module) -> Iterator[nn.Module]:
    """The layers that a network has in lists, outermost first: its transformer blocks."""
    for child in network.children():
        if isinstance(network, nn.ModuleList) and not isinstance(child, nn.ModuleList):
            yield child
        else:
            yield from layers_of(child)


COMPILED = ("network", "blocks")


def compiled_by_host(patcher: Any, backend: str) -> Any:
    """A MODEL of the running host as its TorchCompileModel node compiles it."""
    from comfy_api.torch_helpers import set_torch_compile_wrapper

    patched = patcher.clone()
    guards = {"guard_filter_fn": lambda guards: ["transformer_options" not in guard.name for guard in guards]}
    set_torch_compile_wrapper(model=patched, backend=backend, options=guards)
    return patched


def compile_in_place(network: nn.Module, what: str | None, **options: Any) -> None:
    """Compiles a network as one of COMPILED says, None: not at all. Blocks of one kind share one compiled function, so
    they take seconds where the whole network takes minutes."""
    torch._dynamo.reset()
    modules = {"network": [network], "blocks": list(layers_of(network)), None: []}[what]
    forwards: dict[Hashable, FunctionType] = {}
    for module in modules:
        # torch.compile counts the graphs of a function's code and stops at eight: layers of other sizes have their own
        kind = type(module), tuple((name, value.shape) for name, value in module.named_parameters())
        own = forwards.setdefault(kind, _copied(type(module).forward))
        module.forward = MethodType(own, module)
        module.compile(**options)


def _copied(function: FunctionType) -> FunctionType:
    """The same function with code of its own."""
    copy = FunctionType(
        function.__code__.replace(),
        function.__globals__,
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


class Step:
    """One evaluation of a network for one sampling step under a schedule, as the samplers call it."""

    def __init__(self, network: nn.Module, spec: ModelSpec, schedule: Schedule, batch: int, size: int | None = None):
        self.network, parameter = network, next(iter(network.parameters()))
        now, like = schedule.at(0.5), {"device": parameter.device, "dtype": parameter.dtype}
        size = size or spec.config.input_size
        self.branches = RULES[schedule.rule].branches(now)
        rows = len(self.branches) * batch
        self.x, self.t = torch.randn(rows, spec.config.in_channels, size, size, **like), torch.rand(rows, **like)
        self.y = condition_of(spec, rows, like)
        self.subsets, self.step = subsets(ahead=64), 0

    def prepared(self) -> Prepared:
        """The next evaluation, its tokens drawn."""
        self.step += 1
        return Evaluation(self.branches, self.subsets.at(self.step)).prepare(self.network, self.x)

    def __call__(self) -> Tensor:
        return self.network(self.x, self.t, self.y, self.prepared())


def condition_of(spec: ModelSpec, rows: int, like: Mapping[str, Any]) -> Condition:
    """Labels or random prompts for so many rows, on the device and in the precision of `like`."""
    if spec.text is None:
        return torch.nn.functional.one_hot(torch.arange(rows) % 7, spec.config.num_classes).to(**like)
    mask = torch.ones(rows, spec.text.length, dtype=torch.bool, device=like["device"]) if spec.text.padded else None
    return Text(torch.randn(rows, spec.text.length, spec.text.width, **like), mask)


def alternate(runs: Mapping[str, Callable[[], object]], rounds: int, warmup: int = 2) -> dict[str, list[float]]:
    """Seconds of every call, the runs taking turns, so that a noisy machine is as unkind to one as to the other."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    with torch.inference_mode(), tqdm(total=(rounds + warmup) * len(runs), leave=False) as bar:
        for turn in range(rounds + warmup):
            for name, run in runs.items():
                wait()
                started = time.perf_counter()
                run()
                wait()
                if turn >= warmup:
                    times[name].append(time.perf_counter() - started)
                bar.update()
    return times


def wait() -> None:
    """Until a GPU has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def peak(run: Callable[[], object]) -> float | None:
    """MiB that a GPU holds at most while `run` runs, the weights included; None without a GPU."""
    if not torch.cuda.is_available():
        return None
    torch.cuda.reset_peak_memory_stats()
    with torch.inference_mode():
        run()
    return round(torch.cuda.max_memory_allocated() / 2**20, 1)


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
    """Writes NAME.json: the rows, and what made them, where and when. It goes into benchmarks/results, or the folder
    that the environment variable OUT names."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    record = {
        "command": shlex.join(["python", *sys.argv]),
        "machine": machine(),
        "date": date.today().isoformat(),
        "torch": torch.__version__,
        **more,
        "rows": rows,
    }
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(record, indent=1) + "\n")
    return path
