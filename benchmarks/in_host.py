# ruff: noqa: E402 (the host decides what can be imported, and when)
"""Seconds per step inside a real ComfyUI: the same model under stock CFG, EasyCache and Sparse Guidance.

Run by the host's own Python, with a checkout:

    ~/ComfyUI/venv/bin/python benchmarks/in_host.py ~/ComfyUI
    ~/ComfyUI/venv/bin/python benchmarks/in_host.py ~/ComfyUI --model SiT-XL/2 --device cuda --batch 4
    ~/ComfyUI/venv/bin/python benchmarks/in_host.py ~/ComfyUI --model SiT-XL/2 --device cuda --compile cudagraphs

With --compile a model goes through what the host's TorchCompileModel node does, and the network is not timed apart.
The stock Skip Layer and Perturbed-Attention nodes patch the blocks of other networks and do nothing to these.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

PACK = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PACK / "tests" / "host"))
from hosted_pack import load_pack

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("checkout", type=Path)
parser.add_argument("--model", default="", help="SiT by its published name, random weights; default: the bundled one")
parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
parser.add_argument("--batch", type=int, default=1)
parser.add_argument("--steps", type=int, default=20)
parser.add_argument("--rounds", type=int, default=5)
parser.add_argument("--compile", default="", choices=["", "inductor", "cudagraphs", "eager"], help="a backend")
options, command = parser.parse_args(), sys.argv

os.environ["COMFYUI_FLAGS"] = "" if options.device == "cuda" else "--cpu"
part = load_pack(str(options.checkout.expanduser()), str(PACK), "--use-pytorch-cross-attention")

import comfy.samplers
import torch
from comfy_extras import nodes_easycache

sys.argv = command
sys.path.append(str(PACK))  # behind the host, which has a top-level module nodes of its own
from benchmarks.timing import compiled_by_host, keep, machine, ratio


def loaded(folder: Path) -> Any:
    """The model, as Sparse Model Loader gives it."""
    path = part("sparse_model.checkpoints.bundled").DEFAULT
    if options.model:
        spec_class, sparsity = part("sparse_model.checkpoints.spec").ModelSpec, part("sparse_model.method.sparsity")
        spec = spec_class.published(options.model, sparsity.Sparsity((sparsity.Route(2, -4),)))
        place = part("sparse_model.networks.layers").Backend(device=options.device, dtype=torch.bfloat16)
        network = part("sparse_model.checkpoints.checkpoint").build(spec, place)
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.02)
        path = folder / "model.safetensors"
        part("sparse_model.checkpoints.checkpoint").save(network.state_dict(), spec, path, torch.bfloat16)
    return part("nodes.host.own.loading").load(str(path))


class Clock:
    """Times every step of a run, and the network within it."""

    def __init__(self, model: Any, latent: torch.Tensor, positive: list, negative: list):
        self.model, self.latent, self.positive, self.negative = model, latent, positive, negative
        self.network: list[float] = []
        if options.compile:
            return
        module = model.model.diffusion_model
        module.register_forward_pre_hook(lambda *_: self._enter())
        module.register_forward_hook(lambda *_: self._leave())

    def _enter(self) -> None:
        _wait()
        self.entered = time.perf_counter()

    def _leave(self) -> None:
        _wait()
        self.network[-1] += time.perf_counter() - self.entered

    def run(self, model: Any) -> tuple[float, float]:
        """(seconds per step, seconds of it outside the network), both the mean over the steps but the first."""
        guider = comfy.samplers.CFGGuider(model)
        guider.set_conds(self.positive, self.negative)
        guider.set_cfg(1.5)
        sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "simple", options.steps)
        ends: list[float] = []
        self.network = [0.0]

        def step(*_: object) -> None:
            _wait()
            ends.append(time.perf_counter())
            self.network.append(0.0)

        noise = torch.randn(self.latent.shape)
        guider.sample(
            noise, self.latent, comfy.samplers.sampler_object("euler"), sigmas, callback=step, disable_pbar=True, seed=1
        )
        steps = torch.tensor(ends).diff()
        return float(steps.mean()), float((steps - torch.tensor(self.network[1:-1])).mean())


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        model = loaded(Path(folder))
    spec = model.model.spec
    size, classes = spec.config.input_size, spec.config.num_classes
    label = torch.zeros(1, 1, classes)
    label[..., 1] = 1
    latent = torch.zeros(options.batch, spec.config.in_channels, size, size)
    clock = Clock(model, latent, [[label, {}]], [[torch.zeros_like(label), {}]])
    guided = part("nodes.host.guide.patch").guided(model, part("sparse_model.method.schedule").PRESETS["SG_FLOPS"])
    cached = nodes_easycache.EasyCacheNode.execute(model, 0.2, 0.15, 0.95, False).args[0]
    runs = {"CFG": model, "EasyCache": cached, "SG_FLOPS": guided}
    if options.compile:
        runs = {name: compiled_by_host(patcher, options.compile) for name, patcher in runs.items()}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    outside: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(options.rounds + 1):
        for name, patcher in runs.items():
            step, rest = clock.run(patcher)
            if turn:
                seconds[name].append(step)
                outside[name].append(rest)
    rows = []
    for name in runs:
        best = min(seconds[name])
        row = {
            "name": name,
            "ms per step": round(1e3 * best, 3),
            "times faster than CFG": round(ratio(seconds, "CFG", name), 3),
        }
        if not options.compile:
            row["ms outside the network"] = round(1e3 * min(outside[name]), 3)
        rows.append(row)
        print(row)
    about = {"model": options.model or spec.title, "batch": options.batch}
    if options.compile:
        about["compiled"] = options.compile
    else:
        about["added_ms"] = round(1e3 * (min(outside["SG_FLOPS"]) - min(outside["CFG"])), 3)
        print(f"The pack adds {about['added_ms']} ms per step outside the network; {machine()}")
    parts = "in_host", options.model.replace("/", "-") or "bundled", options.compile
    print(keep("_".join(filter(None, parts)), rows, **about))


main()
