"""Workflows in API form, built line by line, and a tiny random checkpoint to run them on."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from host import Host, Result, Workflow
from safetensors.torch import load_file, save_file
from torch import Tensor

from sparse_model.checkpoints.checkpoint import build, save
from sparse_model.checkpoints.spec import ModelSpec
from sparse_model.method.prediction import Flow
from sparse_model.method.schedule import constant
from sparse_model.method.sparsity import Route, Sparsity
from sparse_model.networks.dit import DiTConfig

SPEC = ModelSpec(
    "dit",
    DiTConfig(16, 4, 3, width=32, depth=4, heads=2, mlp_ratio=2.0, num_classes=3),
    Flow(output="data", time_scale=1000.0),
    Sparsity((Route(1, 2, 0.5),)),
    labels=("cat", "rocket", "twemoji"),
    latent="pixels",
    schedule=constant(0.25, 0.75, 2.0),
)
"""16 x 16 pixels, 16 tokens: a step costs a millisecond, and every rate in quarters keeps a whole number of tokens."""


def write_checkpoint(path: Path, spec: ModelSpec = SPEC, seed: int = 0) -> dict[str, Tensor]:
    """A network of random weights that reacts to all its inputs; returns its weights."""
    generator = torch.Generator().manual_seed(seed)
    state = {
        key: torch.randn(value.shape, generator=generator) * 0.15 for key, value in build(spec).state_dict().items()
    }
    save(state, spec, path)
    return state


Socket = list[Any]


@dataclass
class Graph:
    """`graph.add("KSampler", model=...)` adds a node and returns its first output; `[id, n]` names another output."""

    nodes: Workflow = field(default_factory=dict)

    def add(self, kind: str, **inputs: Any) -> Socket:
        name = str(len(self.nodes) + 1)
        self.nodes[name] = {"class_type": kind, "inputs": inputs}
        return [name, 0]

    def save(self, samples: Socket) -> str:
        """Adds a node that saves a latent; returns its id, for `Latents`."""
        return self.add("SaveLatent", samples=samples, filename_prefix="latents/test")[0]

    def model(self, name: str = "tiny.safetensors") -> Socket:
        return self.add("SparseModelLoader", model_name=name, weight_dtype="default")

    def labels(self, model: Socket, text: str = "twemoji, rocket") -> tuple[Socket, Socket]:
        """(conditioning, null conditioning)."""
        node = self.add("SparseClassCondition", model=model, labels=text)
        return node, [node[0], 1]

    def sparsity(self, **values: Any) -> Socket:
        """A custom schedule: SG at gamma 0.25 and 0.75, omega 2, unless `values` say otherwise."""
        curves: dict[str, Any] = {}
        for name, value in (("gamma_strong", 0.25), ("gamma_weak", 0.75), ("omega", 2.0)):
            curves |= {f"{name}_start": value, f"{name}_end": value, f"{name}_shape": "constant"}
        rest = {"preset": "custom", "rule": "SG", "start_percent": 0.0, "end_percent": 1.0, "selection": "exact"}
        return self.add("SparsityScheduler", **{**rest, **curves, **values})

    def dense(self, **values: Any) -> Socket:
        """CFG + SG that drops nothing, which must be CFG."""
        return self.sparsity(rule="CFG + SG", gamma_strong_start=0.0, gamma_weak_start=0.0, **values)

    def sampled(self, model: Socket, positive: Socket, negative: Socket, latent: Socket, **values: Any) -> Socket:
        """The stock KSampler: euler, 4 steps, cfg 3, seed 5."""
        rest = {"seed": 5, "steps": 4, "cfg": 3.0, "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0}
        return self.add(
            "KSampler", model=model, positive=positive, negative=negative, latent_image=latent, **{**rest, **values}
        )

    def sparse_sampled(self, model: Socket, positive: Socket, latent: Socket, **values: Any) -> Socket:
        """Our all-in-one sampler: euler, 4 steps, seed 5."""
        rest = {"seed": 5, "steps": 4, "preset": "SG_FLOPS", "omega": 0.0, "denoise": 1.0}
        names = {"sampler_name": "euler", "scheduler": "simple"}
        return self.add(
            "SparseKSampler", model=model, positive=positive, latent_image=latent, **{**rest, **names, **values}
        )

    def advanced(self, guider: Socket, latent: Socket, model: Socket, steps: int = 4, seed: int = 5) -> Socket:
        """The stock SamplerCustomAdvanced."""
        sigmas = self.add("BasicScheduler", model=model, scheduler="simple", steps=steps, denoise=1.0)
        noise = self.add("RandomNoise", noise_seed=seed)
        sampler = self.add("KSamplerSelect", sampler_name="euler")
        return self.add(
            "SamplerCustomAdvanced", noise=noise, guider=guider, sampler=sampler, sigmas=sigmas, latent_image=latent
        )


def run(host: Host, graph: Graph, **options: Any) -> Result:
    """Runs to the end; an error of the host fails the test in its words."""
    result = host.run(graph.nodes, **options)
    assert result.error is None, result.error.get("exception_message", result.error)
    return result


def sentence(host: Host, graph: Graph) -> str:
    """Run a graph that must fail while it executes, in one sentence of ours; return what the error box says."""
    result = host.run(graph.nodes)
    assert result.error is not None, "the run went through"
    assert result.error["type"] == "execution_error", json.dumps(result.error)[:2000]
    text = result.error["exception_message"].strip()
    assert "\n" not in text and text[-1] in ".?", text
    return text


def latents(host: Host, result: Result) -> Mapping[str, Tensor]:
    """What each SaveLatent node of a run wrote: node id -> [B, C, H, W]."""
    found = {}
    for node, output in result.outputs.items():
        for entry in output.get("latents", []):
            path = host.directory / "output" / entry["subfolder"] / entry["filename"]
            found[node] = load_file(path)["latent_tensor"]
            assert torch.isfinite(found[node]).all(), f"node {node} made values that are not finite"
    return found


def sampled_latents(host: Host, graph: Graph) -> Mapping[str, Tensor]:
    return latents(host, run(host, graph))


def write_models(host: Host) -> None:
    """The tiny network, a copy of it, an earlier checkpoint, and a LoRA for one of its layers, where the host looks."""
    folder = host.directory / "models" / "diffusion_models"
    folder.mkdir(parents=True, exist_ok=True)
    write_checkpoint(folder / "tiny.safetensors")
    shutil.copy(folder / "tiny.safetensors", folder / "tiny-copy.safetensors")
    write_checkpoint(folder / "tiny-early.safetensors", seed=1)
    loras = host.directory / "models" / "loras"
    loras.mkdir(parents=True, exist_ok=True)
    width = SPEC.config.width
    name = "diffusion_model.blocks.1.attn.qkv"
    generator = torch.Generator().manual_seed(2)
    save_file(
        {
            f"{name}.lora_up.weight": torch.randn(3 * width, 4, generator=generator),
            f"{name}.lora_down.weight": torch.randn(4, width, generator=generator),
        },
        loras / "tiny-lora.safetensors",
    )


class Scene:
    """Loader, labels and an empty latent: where every test starts."""

    def __init__(self, batch: int = 1) -> None:
        self.graph = Graph()
        self.model = self.graph.model()
        self.positive, self.null = self.graph.labels(self.model)
        self.latent = self.graph.add("EmptySparseLatent", model=self.model, batch_size=batch, width=0, height=0)

    def guided(self, sparsity: list, model: list | None = None) -> list:
        return self.graph.add("SparseGuidance", model=model or self.model, sparsity=sparsity)

    def stock(self, model: list | None = None, **values) -> str:
        latent = values.pop("latent", self.latent)
        positive = values.pop("positive", self.positive)
        return self.graph.save(self.graph.sampled(model or self.model, positive, self.null, latent, **values))

    def sparse(self, **values) -> str:
        latent = values.pop("latent", self.latent)
        positive = values.pop("positive", self.positive)
        return self.graph.save(self.graph.sparse_sampled(self.model, positive, latent, **values))


def equal(found, *nodes: str) -> bool:
    return all(torch.equal(found[nodes[0]], found[node]) for node in nodes[1:])
