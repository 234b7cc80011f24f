"""Small random checkpoints in the files that people download: names, keys and packing of the authors'."""

from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from sparse_model.checkpoints.checkpoint import build
from sparse_model.checkpoints.spec import ModelSpec
from sparse_model.conditions.text import TextSpec
from sparse_model.method.prediction import Flow
from sparse_model.networks.dit import DiTConfig
from sparse_model.networks.maskdit import MaskDiTConfig
from sparse_model.networks.mdt import MDTConfig
from sparse_model.networks.microdit import MicroDiTConfig
from sparse_model.networks.sprint import SprintConfig
from sparse_model.networks.srdit import SRDiTConfig

SMALL = DiTConfig(32, 2, 4, width=64, depth=3, heads=1)
FILES = {
    "DiT-XL-2-256x256.pt": ModelSpec("dit", replace(SMALL, learn_sigma=True), Flow()),
    "SiT-XL-2-256.pt": ModelSpec("dit", replace(SMALL, learn_sigma=True), Flow()),
    "tread.pt": ModelSpec("dit", SMALL, Flow()),
    "imagenet256-ckpt-best_with_guidance.pt": ModelSpec(
        "maskdit", MaskDiTConfig(32, width=64, depth=2, heads=1, decoder_width=32, decoder_depth=1), Flow()
    ),
    "mdt_xl2_v2_ckpt.pt": ModelSpec("mdt", MDTConfig(width=64, depth=2, heads=1, half=1), Flow()),
    "sprint_XL_imagenet256.safetensors": ModelSpec("sprint", SprintConfig(width=48, depth=2, heads=4), Flow()),
    "0400000.pt": ModelSpec("srdit", SRDiTConfig(width=48, depth=2, heads=4), Flow()),
    "dit_4_channel_37M_real_and_synthetic_data.pt": ModelSpec(
        "microdit",
        MicroDiTConfig(
            input_size=64, width=128, depth=2, mixer_width=64, mixer_depth=2, attention=(64, 64, 128, 128),
            hidden=(64, 64, 64, 64), experts=(0, 4, 4, 0), text_width=12, text_hidden=64, head_width=64,
        ),
        Flow(),
        text=TextSpec("clip-h", 12, 77, "zeros"),
    ),
}  # fmt: skip


def published_microdit(channels: int = 4) -> MicroDiTConfig:
    """MicroDiT_XL_2 of the authors' code: widths rise evenly from layer to layer, rounded up to what divides well."""
    steps = np.linspace(0, 1, 28)
    inner = [128 * -(-int(1024 * ratio) // 128) if ratio != 1 else 1024 for ratio in 0.5 + 0.5 * steps]
    mlp = [int(1024 * ratio) for ratio in np.linspace(0.5, 4.0, 28)]
    experts = [8 if i % 2 else 0 for i in range(6)] + [8 if i % 2 and i < 27 else 0 for i in range(28)]
    hidden = [
        256 * -(-(size if count else int(2 * size / 3)) // 256)
        for size, count in zip([4 * 768] * 6 + mlp, experts, strict=True)
    ]
    return MicroDiTConfig(
        input_size=64, in_channels=channels, width=1024, depth=28, mixer_width=768, mixer_depth=6,
        attention=(768,) * 6 + tuple(inner), hidden=tuple(hidden), experts=tuple(experts),
        text_width=1024, text_hidden=2816, head_width=64,
    )  # fmt: skip


def write_published(path: Path, spec: ModelSpec) -> None:
    """Random weights in the form that the authors' training saves: no metadata, averages beside what was trained."""
    generator = torch.Generator().manual_seed(0)
    state: dict[str, Tensor] = {
        key: torch.randn(value.shape, generator=generator) * 0.1 for key, value in build(spec).state_dict().items()
    }
    if path.suffix == ".safetensors":
        save_file(state, path)
    elif spec.architecture == "maskdit":
        wrapped = {f"model.{key}": value for key, value in state.items()}
        torch.save({"model": {key: 0 * value for key, value in wrapped.items()}, "ema": wrapped}, path)
    elif spec.architecture == "srdit":
        further = {"projectors.0.0.weight": torch.zeros(8, 48), "feat_rope.freqs_cos": torch.zeros(256, 12)}
        trained = {key: 0 * value for key, value in state.items()}
        torch.save({"model": trained, "ema": state | further, "opt": {}, "args": Namespace(cls=0.03), "steps": 1}, path)
    else:
        if spec.architecture == "mdt":  # every layer has a table of what stands for which two cells
            tables = [key.replace("_bias_table", "_index") for key in state if key.endswith("_bias_table")]
            state |= {key: torch.zeros(spec.config.grid**2, spec.config.grid**2, dtype=torch.int64) for key in tables}
        torch.save(state, path)
