"""Samples on a GPU beside those of the CPU in float32: every architecture, rule and precision, tiny random networks.

python benchmarks/correctness.py --device cuda

Ends with an error if a sample is further off than the precision explains, other tokens were kept, gamma 0 is not dense
to the bit (but for experts on a GPU), one pass is not what two calls give, or compiled blocks differ.
"""

import argparse
import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from torch import Tensor, nn

from benchmarks.timing import CFG, Step, compile_in_place, condition_of, keep, spec_of
from sparse_model.checkpoints.checkpoint import build
from sparse_model.checkpoints.spec import ModelSpec
from sparse_model.conditions.text import Condition, Text, TextSpec
from sparse_model.method.branches import Branch, Evaluation
from sparse_model.method.prediction import EDM, Flow
from sparse_model.method.sampling import Denoiser, sample
from sparse_model.method.schedule import Schedule, constant
from sparse_model.method.sparsity import Sparsity
from sparse_model.method.tokens import subsets
from sparse_model.networks.maskdit import MaskDiTConfig
from sparse_model.networks.microdit import Experts, MicroDiTConfig
from sparse_model.networks.sprint import SprintConfig
from sparse_model.networks.srdit import SRDiTConfig

MICRODIT = MicroDiTConfig(
    input_size=8, width=32, depth=2, mixer_width=16, mixer_depth=2, attention=(16, 16, 32, 32), hidden=(24, 32, 40, 48),
    experts=(0, 4, 4, 0), text_width=16, text_hidden=32, head_width=16,
)  # fmt: skip
SPECS = {
    "dit": spec_of("SiT-XL/2", toy=True),
    "trdit": spec_of("TR-DiT-2.5B", toy=True),
    "xut": spec_of("HDM", toy=True),
    "prx": spec_of("PRX", toy=True),
    "maskdit": ModelSpec(
        "maskdit", MaskDiTConfig(8, 2, 4, width=32, depth=2, heads=2, num_classes=10), EDM(), Sparsity(mask=0.5)
    ),
    "sprint": ModelSpec(
        "sprint", SprintConfig(8, 2, 4, width=32, depth=3, heads=2, num_classes=10), Flow(), Sparsity(mask=0.75)
    ),
    "srdit": ModelSpec(
        "srdit",
        SRDiTConfig(8, 1, 5, width=32, depth=3, heads=2, num_classes=10, class_width=48, class_channels=1),
        Flow(),
        Sparsity(mask=0.75),
        latent="invae",
    ),
    "microdit": ModelSpec(
        "microdit", MICRODIT, EDM(0.9), Sparsity(mask=0.75), latent="sdxl", text=TextSpec("clip-h", 16, 8, "zeros")
    ),
}
SCHEDULES = {
    "unguided": constant(0, 0, 1, "CFG"),
    "CFG": CFG,
    "SG": constant(0.25, 0.75, 1.5),
    "SG, bernoulli": replace(constant(0.25, 0.75, 1.5), selection="bernoulli"),
    "SG, structured": replace(constant(0.25, 0.75, 1.5), selection="structured"),
    "CFG + SG": constant(0.0, 0.5, 1.5, "CFG + SG"),
    "SG beside CFG": constant(0.25, 1.0, 1.5, "SG beside CFG"),
}
TOLERANCES = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 8e-2}
"""How far off, of the sample's own size, rounding alone brings a sample of four steps."""

BATCH, STEPS = 2, 4


def network_of(spec: ModelSpec, dtype: torch.dtype) -> nn.Module:
    """Weights that a precision holds exactly, so that only its arithmetic differs; large enough that every layer
    counts."""
    network = build(spec).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        values = torch.randn(parameter.shape, generator=generator) / math.prod(parameter.shape[-1:]) ** 0.5
        parameter.copy_(values.to(dtype))
    return network


def moved(condition: Condition, device: str, dtype: torch.dtype) -> Condition:
    if not isinstance(condition, Text):
        return condition.to(device, dtype)
    mask = None if condition.mask is None else condition.mask.to(device)
    return Text(condition.embeddings.to(device, dtype), mask)


def drawn(network: nn.Module, spec: ModelSpec, condition: Condition, schedule: Schedule) -> Tensor:
    null = condition
    if isinstance(condition, Text):
        null = Text(torch.zeros_like(condition.embeddings), condition.mask)
    elif schedule.rule != "CFG":
        null = torch.zeros_like(condition)
    shape = (spec.config.in_channels, spec.config.input_size, spec.config.input_size)
    return sample(
        Denoiser(network, spec.prediction), condition, schedule, shape=shape, steps=STEPS, seed=3, cfg=1.5, null=null
    )


def far(found: Tensor, expected: Tensor) -> float:
    """||found - expected|| / ||expected||; infinite where a number is not finite."""
    found, expected = found.float().cpu(), expected.float().cpu()
    if not found.isfinite().all():
        return float("inf")
    return float((found - expected).norm() / expected.norm())


def samples(name: str, dtype: torch.dtype, device: str) -> list[dict[str, Any]]:
    """One row per schedule: the sample on the device against that of the CPU in float32."""
    spec, reference = SPECS[name], network_of(SPECS[name], dtype)
    network = network_of(spec, dtype).to(device, dtype)
    torch.manual_seed(1)
    condition = condition_of(spec, BATCH, {"device": "cpu", "dtype": torch.float32})
    condition = moved(moved(condition, "cpu", dtype), "cpu", torch.float32)  # as a precision holds it
    precision = str(dtype).removeprefix("torch.")
    rows = []
    for label, schedule in SCHEDULES.items():
        expected = drawn(reference, spec, condition, schedule)
        found = drawn(network, spec, moved(condition, device, dtype), schedule)
        error = far(found, expected)
        rows.append({"network": name, "schedule": label, "dtype": precision, "error": error,
                     "right": error <= TOLERANCES[precision]})  # fmt: skip
    return rows


def passes(name: str, device: str) -> list[dict[str, Any]]:
    """What must hold on any device, in float32: same tokens as on the CPU, gamma 0 dense to the bit, two branches in
    one pass as in two calls, compiled blocks as uncompiled ones."""
    spec, network = SPECS[name], network_of(SPECS[name], torch.float32)
    step = Step(network.to(device), spec, constant(0.25, 0.75, 1.5), BATCH)
    (strong, weak), kept = step.branches, subsets(5, 2)
    half = slice(0, BATCH)
    values = step.x[half], step.t[half], _rows(step.y, half)
    twice = step.x[half].repeat(2, 1, 1, 1), step.t[half].repeat(2), _twice(values[2])

    with torch.inference_mode():
        there = Evaluation((strong, weak), kept).prepare(network, twice[0]).kept
        here = Evaluation((strong, weak), kept).prepare(network, twice[0].cpu()).kept
        together = network(*twice, Evaluation((strong, weak), kept))
        apart = torch.cat([network(*values, Evaluation((branch,), kept)) for branch in (strong, weak)])
        dense, zero = network(*values), network(*values, Evaluation((Branch(0.0),), kept))
        # a CPU only rehearses: traced, but run as it is
        compile_in_place(network, "blocks", dynamic=False, backend="eager" if device == "cpu" else "inductor")
        compiled = network(*twice, Evaluation((strong, weak), kept))
    # a GPU adds what several experts say of one token in any order
    unordered = device != "cpu" and any(isinstance(module, Experts) for module in network.modules())
    same = all(torch.equal(a.cpu(), b) for one, other in zip(there, here, strict=True)
               for a, b in zip(one, other, strict=True))  # fmt: skip
    checks = {
        "kept tokens": (0.0 if same else 1.0, 0.0),
        "gamma 0 is dense": (far(zero, dense), TOLERANCES["float32"] if unordered else 0.0),
        "one pass or two calls": (far(together, apart), TOLERANCES["float32"]),
        "compiled blocks": (far(compiled, together), TOLERANCES["float32"]),
    }
    return [
        {"network": name, "check": check, "dtype": "float32", "error": error, "right": error <= tolerance}
        for check, (error, tolerance) in checks.items()
    ]


def _rows(y: Condition, rows: slice) -> Condition:
    return Text(*(None if value is None else value[rows] for value in y)) if isinstance(y, Text) else y[rows]


def _twice(y: Condition) -> Condition:
    if isinstance(y, Text):
        return Text(*(None if value is None else torch.cat([value, value]) for value in y))
    return torch.cat([y, y])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--networks", nargs="+", default=list(SPECS), choices=list(SPECS))
    parser.add_argument("--dtypes", nargs="+", default=list(TOLERANCES), choices=list(TOLERANCES))
    parser.add_argument("--name", default="correctness", help="results/NAME.json")
    options = parser.parse_args()
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False  # float32 is to be float32
    rows = []
    for name in options.networks:
        for dtype in options.dtypes:
            rows += samples(name, getattr(torch, dtype), options.device)
        rows += passes(name, options.device)
        own = [row for row in rows if row["network"] == name]
        worst = {dtype: max(row["error"] for row in own if row["dtype"] == dtype) for dtype in options.dtypes}
        print(f"{name}: largest errors {worst}", flush=True)
        path = keep(options.name, rows, device=options.device)
    print(path)
    if wrong := [row for row in rows if not row["right"]]:
        raise SystemExit("\n".join(f"WRONG: {row}" for row in wrong))


if __name__ == "__main__":
    main()
