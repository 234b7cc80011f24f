# ruff: noqa: E402 (the host decides what can be imported, and when)
"""The ways a host can run a model on a GPU, each beside the CPU in float32: fp8 storage, weights that stay in main
memory and come over two streams, weights that the host's dynamic offloading fetches, the network compiled by the host
or made into CUDA graphs.

Run by the host's own Python, one way per process, because the host decides how it handles memory when it starts:

    COMFYUI_PYTHON benchmarks/host_ways.py COMFYUI_PATH --way streams --device cuda

Ends with an error if a guided sample is further off than the precision explains, or the way was not taken.
"""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

PACK = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PACK / "tests" / "host"))
from hosted_pack import load_pack

WAYS = {
    "plain": "",
    "fp8": "",
    "streams": "--novram --async-offload 2",
    "dynamic": "",
    "compiled": "",
    "cudagraphs": "",
}
"""The host's flags for each; none is its normal use of a GPU's memory, for which some versions have no flag."""

BACKENDS = {"compiled": "inductor", "cudagraphs": "cudagraphs"}
"""Of the host's TorchCompileModel node; on a CPU "eager" stands in for both."""

TOLERANCES = {"float32": 1e-3, "float16": 2e-2, "bfloat16": 1e-1}
"""How far off, of the sample's own size, rounding alone brings a guided sample of four steps."""

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("checkout", type=Path)
parser.add_argument("--way", default="plain", choices=list(WAYS))
parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
parser.add_argument("--rules", nargs="+", default=["SG", "CFG + SG", "SG beside CFG"])
options, command = parser.parse_args(), sys.argv

if options.way == "dynamic" and options.device == "cuda":  # as main.py does it, before torch is imported
    import comfy_aimdo.control

    comfy_aimdo.control.init(nvml_pressure=True)
os.environ["COMFYUI_FLAGS"] = WAYS[options.way] if options.device == "cuda" else "--cpu"
part = load_pack(str(options.checkout.expanduser()), str(PACK), "--use-pytorch-cross-attention")

import comfy.model_management as management
import comfy.samplers
import torch
from torch import Tensor

sys.argv = command
sys.path.append(str(PACK))  # behind the host, which has a top-level module nodes of its own
from benchmarks.timing import compiled_by_host, keep

MODEL = part("sparse_model.checkpoints.bundled").DEFAULT


def load(*how: str) -> Any:
    return part("nodes.host.own.loading").load(str(MODEL), *how)


def on_the_cpu(state: dict[str, Tensor]) -> Any:
    """A MODEL with these weights that runs in float32 on the CPU, in the same host."""
    patcher = load("default", True)
    model = patcher.model
    model.diffusion_model.to("cpu", torch.float32).load_state_dict({name: v.float() for name, v in state.items()})
    model.diffusion_model.dtype, model.manual_cast_dtype = torch.float32, None
    patcher.load_device = patcher.offload_device = model.device = torch.device("cpu")
    return patcher


def sample(patcher: Any, rule: str) -> Tensor:
    """Four Euler steps at cfg 2, from the same noise and tokens."""
    about, schedule = patcher.model.spec, part("sparse_model.method.schedule")
    end = 0.5 if options.way in BACKENDS else 0.75  # each count of kept tokens would be compiled for itself
    label = torch.zeros(1, 1, about.config.num_classes)
    label[..., :2] = 1
    plan = schedule.Schedule(schedule.Curve.constant(0.25), schedule.Curve.linear(0.5, end),
                             schedule.Curve.constant(2.0), rule)  # fmt: skip
    guider = comfy.samplers.CFGGuider(part("nodes.host.guide.patch").guided(patcher, plan))
    guider.set_conds([[label, {}]], [[torch.zeros_like(label), {}]])
    guider.set_cfg(2.0)
    size = about.config.input_size
    noise = torch.randn(2, about.config.in_channels, size, size, generator=torch.Generator().manual_seed(0))
    sampler, sigmas = comfy.samplers.sampler_object("euler"), torch.linspace(1, 0, 5)
    return guider.sample(noise, torch.zeros_like(noise), sampler, sigmas, disable_pbar=True, seed=9).float().cpu()


def plain(patcher: Any) -> tuple[Any, Callable[[], bool]]:
    return patcher, lambda: True


def fp8(patcher: Any) -> tuple[Any, Callable[[], bool]]:
    stored = load("fp8_e4m3fn")
    kinds = {value.dtype for value in stored.model.diffusion_model.state_dict().values()}
    return stored, lambda: torch.float8_e4m3fn in kinds


def streams(patcher: Any) -> tuple[Any, Callable[[], bool]]:
    def taken() -> bool:
        offloaded = any(value.device.type == "cpu" for value in patcher.model.diffusion_model.parameters())
        return management.NUM_STREAMS == 2 and offloaded

    return patcher, taken


def dynamic(patcher: Any) -> tuple[Any, Callable[[], bool]]:
    """As the host's main.py does it where the card can: the patcher is another one."""
    if options.device == "cuda":
        import comfy.memory_management
        import comfy.model_patcher

        devices = [(device.index, 0) for device in management.get_all_torch_devices()]
        if comfy_aimdo.control.init_devices(devices):
            comfy.model_patcher.CoreModelPatcher = comfy.model_patcher.ModelPatcherDynamic
            comfy.memory_management.aimdo_enabled = True
            patcher = load()
    return patcher, lambda: type(patcher).__name__ == "ModelPatcherDynamic"


def compiled(patcher: Any) -> tuple[Any, Callable[[], bool]]:
    """As the host's TorchCompileModel node does it."""
    backend = BACKENDS[options.way] if options.device == "cuda" else "eager"
    patched = compiled_by_host(patcher, backend)
    return patched, lambda: bool(patched.wrappers) or bool(patched.model_options["transformer_options"].get("wrappers"))


def main() -> None:
    patcher, taken = {
        "plain": plain, "fp8": fp8, "streams": streams, "dynamic": dynamic, "compiled": compiled, "cudagraphs": compiled
    }[options.way](load())  # fmt: skip
    model = patcher.model
    state = {name: value.detach().cpu() for name, value in model.diffusion_model.state_dict().items()}
    computes = str(model.manual_cast_dtype or model.diffusion_model.dtype).removeprefix("torch.")
    reference, rows = on_the_cpu(state), []
    for rule in options.rules:
        expected, found = sample(reference, rule), sample(patcher, rule)
        error = float((found - expected).norm() / expected.norm()) if found.isfinite().all() else float("inf")
        rows.append({"rule": rule, "error": error, "right": error <= TOLERANCES[computes]})
        print(f"{options.way}, computed in {computes}: {rows[-1]}", flush=True)
    way_taken = taken()
    print(keep(f"host_{options.way}", rows, device=options.device, computes=computes, taken=way_taken))
    if options.device == "cuda" and not way_taken:
        raise SystemExit(f"WRONG: the host did not take the way '{options.way}'.")
    if wrong := [row for row in rows if not row["right"]]:
        raise SystemExit("\n".join(f"WRONG: {row}" for row in wrong))


main()
