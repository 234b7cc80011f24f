"""Whether a model copies: several samples of each label beside the nearest training pictures.

    python -m sparse_model.training.nearest models/icons-64.safetensors icons-64.npz --config icons-64 \
        --labels "twemoji, fox" "noto, rocket" --out pictures.png
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor

from ..checkpoints.checkpoint import load
from ..conditions.labels import label_weights
from ..method.sampling import Denoiser, sample
from ..method.schedule import constant
from ..pictures.image import contact_sheet
from ..writing import whole_file
from .config import CONFIGS
from .data import Pictures
from .data import load as load_pictures


def nearest(samples: Tensor, pictures: Pictures, index: Tensor, chunk: int = 512) -> tuple[Tensor, Tensor]:
    """samples [B, C, H, W] -> the nearest of the pictures `index` [B, C, H, W], mirrored where that is nearer, and the
    root mean square difference of their pixels [B], of the range [-1, 1]."""
    best, found = torch.full((len(samples),), torch.inf, device=samples.device), torch.empty_like(samples)
    for part in index.split(chunk):
        plain = pictures.pixels(part).to(samples)
        candidates = torch.cat([plain, plain.flip(3)])
        distances, rows = (torch.cdist(samples.flatten(1), candidates.flatten(1)) / samples[0].numel() ** 0.5).min(
            dim=1
        )
        closer = distances < best
        best[closer], found[closer] = distances[closer], candidates[rows[closer]]
    return found, best


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m sparse_model.training.nearest", description=__doc__.splitlines()[0]
    )
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("data", type=Path, help="the packed .npz it was trained on")
    parser.add_argument("--config", required=True, choices=CONFIGS, help="the configuration it was trained with")
    parser.add_argument("--labels", nargs="+", required=True, help="a row of samples for each, such as 'noto, fox'")
    parser.add_argument("--each", type=int, default=4, help="samples of a label (%(default)s)")
    parser.add_argument("--steps", type=int, help="steps; the checkpoint's own recommendation if not given")
    parser.add_argument("--out", type=Path, required=True, help="the .png to write")
    options = parser.parse_args(argv)
    network, spec = load(options.checkpoint)
    config = CONFIGS[options.config]
    pictures = load_pictures(options.data, spec.config.input_size, **config.filters)
    training, _ = pictures.split(config.held_out, config.seed)
    shape = (spec.config.in_channels, spec.config.input_size, spec.config.input_size)
    condition = torch.stack([label_weights(text, spec.labels) for text in options.labels for _ in range(options.each)])
    schedule = spec.schedule or constant(0, 0.9, 2)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    denoiser = Denoiser(network.to(device, torch.float32), spec.prediction)
    steps = options.steps or spec.steps
    samples = sample(denoiser, condition.to(device), schedule, shape=shape, steps=steps).clamp(-1, 1)
    found, distances = nearest(samples, pictures, training)
    samples, found, distances = samples.cpu(), found.cpu(), distances.cpu()
    rows = {
        f"{label}   (differences {', '.join(f'{d:.2f}' for d in apart)})": torch.cat([own, near])
        for label, own, near, apart in zip(
            options.labels, *(part.split(options.each) for part in (samples, found, distances)), strict=True
        )
    }
    columns = ["sample"] * options.each + ["nearest"] * options.each
    picture = contact_sheet(rows, scale=max(1, 128 // spec.config.input_size), columns=columns)
    with whole_file(options.out) as temporary:
        picture.save(temporary, "PNG", optimize=True)


if __name__ == "__main__":
    main()
