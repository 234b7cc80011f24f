# ruff: noqa: E402 (the host decides what can be imported, and when)
"""Time per step of a FLUX-shaped model of the host: stock CFG, Sparse Guidance with its branches side by side and one
after the other, and both in three branches.

All in one process:

    ~/ComfyUI/venv/bin/python benchmarks/host_models.py --comfyui ~/ComfyUI

Random weights, FLUX's proportions (twice as many single as double blocks, eight image tokens per text token, heads of
128), reduced until it fits. The steps alternate, so that whatever else the machine does hits both; on a CPU the time is
that of the process, which a busy machine does not stretch. The multiply-adds are counted on what really runs: every
linear layer and both products of every attention. Operations are those of PyTorch that compute or copy something: on a
GPU each is launched, or several are.
"""

import argparse
import importlib
import os
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

PACK = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PACK / "tests" / "host"))
from hosted_pack import load_pack


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--comfyui", type=Path, default=Path.home() / "ComfyUI")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
    parser.add_argument("--hidden", type=int, default=1536)
    parser.add_argument("--depth", type=int, default=6, help="double blocks; twice as many single blocks follow")
    parser.add_argument("--side", type=int, default=64, help="height and width of the latent; a patch has 2 x 2")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--name", default="host_models", help="results/NAME.json")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--route", type=int, nargs=2, default=(2, -2))
    parser.add_argument("--gammas", type=float, nargs=2, default=(0.1, 0.8))
    return parser.parse_args()


options, command = arguments(), sys.argv
os.environ["COMFYUI_FLAGS"] = "" if options.device == "cuda" else "--cpu"
part = load_pack(str(options.comfyui.expanduser()), str(PACK), "--use-pytorch-cross-attention")

import comfy.model_management
import comfy.model_patcher
import comfy.samplers
import comfy.supported_models
import torch
from attention_count import counting
from comfy.ldm.flux.model import FluxParams
from torch import Tensor, nn

sys.argv = command
sys.path.append(str(PACK))  # behind the host, which has a top-level module nodes of its own
from benchmarks.operations import Operations
from benchmarks.timing import keep, ratio

POOLED, CONTEXT = 768, 4096  # channels of CLIP's and of T5's text


def flux(dtype: torch.dtype) -> comfy.model_patcher.ModelPatcher:
    """FLUX of the size that the options say, seeded random weights, on the CPU."""
    sizes = {
        "in_channels": 16, "out_channels": 16, "vec_in_dim": POOLED, "context_in_dim": CONTEXT,
        "hidden_size": options.hidden, "num_heads": options.hidden // 128, "mlp_ratio": 4.0, "depth": options.depth,
        "depth_single_blocks": 2 * options.depth, "axes_dim": [16, 56, 56], "theta": 10000, "patch_size": 2,
        "qkv_bias": True, "guidance_embed": True, "txt_ids_dims": [],
    }  # fmt: skip
    sizes = {
        name: value for name, value in sizes.items() if name in FluxParams.__dataclass_fields__
    }  # not in all hosts
    config = comfy.supported_models.Flux({**sizes, "image_model": "flux", "dtype": dtype})
    config.set_inference_dtype(dtype, None)
    model = config.get_model({}, "")
    like = {"device": options.device, "generator": torch.Generator(options.device).manual_seed(0)}
    for value in model.diffusion_model.state_dict().values():
        value.copy_((torch.randn(value.shape, **like) / value.shape[-1] ** 0.5).to(dtype))
    cpu = torch.device("cpu")
    return comfy.model_patcher.ModelPatcher(model, load_device=cpu, offload_device=cpu)


def condition(seed: int) -> list:
    """A prompt as the host's nodes pass it, one text token per eight image tokens."""
    generator, tokens = torch.Generator().manual_seed(seed), (options.side // 2) ** 2
    context = torch.randn(1, tokens // 8, CONTEXT, generator=generator)
    return [[context, {"pooled_output": torch.randn(1, POOLED, generator=generator)}]]


def clock() -> float:
    """Seconds: of a GPU that has finished, or of this process on a CPU."""
    if options.device == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time() / torch.get_num_threads()


class Counter:
    """Multiply-adds of linear layers and attention while it is on."""

    def __init__(self, network: nn.Module):
        self.on, self.linear, self.attention = False, 0, 0
        for layer in network.modules():
            if isinstance(layer, nn.Linear):
                layer.register_forward_hook(self.count_linear)
        math = importlib.import_module("comfy.ldm.flux.math")
        math.optimized_attention = counting(math.optimized_attention, self.count_attention)

    def count_linear(self, layer: nn.Linear, args: tuple[Tensor], output: Tensor) -> None:
        self.linear += self.on * args[0].numel() * output.shape[-1]

    def count_attention(self, count: int) -> None:
        self.attention += self.on * count

    def of(self, step: Any) -> int:
        self.on, self.linear, self.attention = True, 0, 0
        step()
        self.on = False
        return self.linear + self.attention


def main() -> None:
    patcher = flux(getattr(torch, options.dtype))
    if options.device == "cuda":
        patcher.load_device = comfy.model_management.get_torch_device()
    route, schedule = part("sparse_model.method.sparsity"), part("sparse_model.method.schedule")
    sparsity = route.Sparsity((route.Route(*options.route, 0.5),))
    family = part("nodes.host.adapters").adapter_of(patcher).family
    routed = part("nodes.host.routes.route").routed(patcher, family, sparsity)
    one_by_one = part("nodes.host.routes.route").routed(patcher, replace(family, packed=False), sparsity)
    guided = part("nodes.host.guide.patch").guided
    sparse = guided(routed, schedule.constant(*options.gammas, 1.8))
    apart = guided(one_by_one, schedule.constant(*options.gammas, 1.8))
    beside = guided(routed, schedule.constant(*options.gammas, 1.8, "SG beside CFG"))
    noise = torch.randn(options.batch, 16, options.side, options.side, generator=torch.Generator().manual_seed(2))
    positive, negative = condition(1), condition(3)
    sigmas = torch.tensor([0.8, 0.7])

    def step(model: Any, cfg: float) -> float:
        guider = comfy.samplers.CFGGuider(model)
        guider.set_conds(positive, negative)
        guider.set_cfg(cfg)
        comfy.model_management.load_models_gpu([model])
        seconds: list[float] = []

        def timed(executor: Any, *args: Any) -> Tensor:
            started = clock()
            output = executor(*args)
            seconds.append(clock() - started)
            return output

        guider.model_options = {**guider.model_options}
        comfy.patcher_extension.add_wrapper_with_key(
            comfy.patcher_extension.WrappersMP.PREDICT_NOISE, "time", timed, guider.model_options, is_model_options=True
        )
        guider.sample(noise, torch.zeros_like(noise), comfy.samplers.sampler_object("euler"), sigmas, disable_pbar=True)
        return seconds[0]

    ways = {
        "unguided": lambda: step(patcher.clone(), 1.0),
        "CFG": lambda: step(patcher.clone(), 2.0),
        "SG": lambda: step(sparse.clone(), 1.8),
        "SG, one branch after the other": lambda: step(apart.clone(), 1.8),
        "SG beside CFG": lambda: step(beside.clone(), 2.0),
    }
    counter = Counter(patcher.model.diffusion_model)
    counts = {name: counter.of(way) for name, way in ways.items()}  # the first runs warm up as well
    operations = {name: Operations.of(way).total() for name, way in ways.items()}
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(options.repeats):
        for name, way in ways.items():
            times[name].append(way())
    measured, predicted = ratio(times, "CFG", "SG"), counts["CFG"] / counts["SG"]
    third = ratio(times, "CFG", "SG beside CFG")
    print(f"SG is {measured:.2f} x as fast per step as CFG; multiply-adds predict {predicted:.2f}; "
          f"efficiency {measured / predicted:.3f}")  # fmt: skip
    rows = [
        {
            "name": name,
            "GMACs": counts[name] / 1e9,
            "operations": operations[name],
            "seconds": statistics.median(times[name]),
            "times": times[name],
        }
        for name in ways
    ]
    for row in rows:
        print(f"{row['name']:30s} {row['seconds']:8.3f} s  {row['GMACs']:9.1f} GMACs {row['operations']:6d} operations")
    sizes = {name: value for name, value in vars(options).items() if name not in ("comfyui", "name")}
    print(keep(options.name, rows, ratio=measured, predicted=predicted, efficiency=measured / predicted,
               ratio_of_three_branches=third,
               ratio_of_side_by_side=ratio(times, "SG, one branch after the other", "SG"), model=sizes))  # fmt: skip


main()
