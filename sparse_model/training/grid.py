"""The sample grid that a training run draws every so often."""

from pathlib import Path

import torch
from torch import nn

from ..checkpoints.spec import ModelSpec
from ..method.sampling import Denoiser, sample
from ..method.schedule import constant
from ..pictures.image import contact_sheet
from ..writing import whole_file
from .data import Pictures

ROWS = {
    "no guidance": constant(0, 0, 1, "CFG"),
    "CFG 2": constant(0, 0, 2, "CFG"),
    "SG 2 (0, 0.9)": constant(0, 0.9, 2),
    "SG 1.5 (0.5, 0.9)": constant(0.5, 0.9, 1.5),
}


def save_grid(network: nn.Module, spec: ModelSpec, pictures: Pictures, index: torch.Tensor, path: Path) -> None:
    """Rows of guidance methods over columns of held-out pictures' labels, and those pictures, into one PNG."""
    index = index[:16]
    device = next(network.parameters()).device
    denoiser = Denoiser(network, spec.prediction)
    y, shape = pictures.weights(index).to(device), tuple(pictures.pixels(index[:1]).shape[1:])
    rows = {"real": pictures.pixels(index).cpu()}
    for name, schedule in ROWS.items():
        rows[name] = sample(denoiser, y, schedule, shape=shape, steps=25).float().cpu()
    with whole_file(path) as temporary:
        contact_sheet(rows, scale=2).save(temporary, "PNG")
