"""Beginning a run with the weights of a network for smaller pictures: as many tokens, each of more pixels now."""

from dataclasses import replace
from pathlib import Path

import torch.nn.functional as F
from torch import nn

from ..checkpoints.bundled import BUNDLED
from ..checkpoints.checkpoint import read
from ..networks.dit import DiTConfig

ENDS = ("final_layer.linear.weight", "final_layer.linear.bias")
TABLE = "y_embedder.embedding_table.weight"


def bundled(name: str) -> Path:
    """A checkpoint's path: as given, or in the folder of bundled models."""
    return Path(name) if Path(name).is_file() else BUNDLED / name


def start_from(network: nn.Module, labels: tuple[str, ...], path: Path) -> None:
    """Fills a DiT with the weights of a DiT checkpoint that differs at most in its labels and the pixels of a patch.

    In larger patches the first layer averages over the pixels that were one and the last one repeats them, so that at
    first the network draws the smaller picture enlarged. Labels are matched by name; new ones stay as initialised.
    ValueError where the two networks differ otherwise, or are no DiTs.
    """
    if not isinstance(network.config, DiTConfig):
        raise ValueError(f"only a DiT can start from '{path}', and this configuration trains another network.")
    spec, state = read(path)
    config, before = network.config, spec.config.patch_size
    times, left = divmod(config.patch_size, before)
    grown = {"input_size": config.input_size, "patch_size": config.patch_size, "num_classes": config.num_classes}
    if left or config.grid != spec.config.grid or replace(spec.config, **grown) != config:
        raise ValueError(f"'{path}' does not fit: {spec.config} cannot start {config}.")
    state = {name: value.float() for name, value in state.items()}
    kernel = state["x_embedder.proj.weight"]  # [D, C, p, p]
    state["x_embedder.proj.weight"] = F.interpolate(kernel, scale_factor=float(times), mode="nearest") / times**2
    for name in ENDS:
        pixels = state[name].unflatten(0, (before, before, -1))  # [p, p, C, D or nothing]
        state[name] = pixels.repeat_interleave(times, dim=0).repeat_interleave(times, dim=1).flatten(0, 2)
    table, rows = network.state_dict()[TABLE].clone(), {name: row for row, name in enumerate(spec.labels)}
    for row, name in enumerate(labels):
        if name in rows:
            table[row] = state[TABLE][rows[name]]
    table[-1] = state[TABLE][-1]  # the null condition
    network.load_state_dict(state | {TABLE: table})
