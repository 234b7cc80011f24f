"""Training pictures in memory: a packed .npz, or any folder of images in class subfolders."""

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from .config import TrainConfig
from .packed import read_packed

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}

HANDED_CATEGORIES = frozenset({"Symbols", "Flags"})
HANDED_WORDS = frozenset(
    word
    for line in Path(__file__).with_name("handed.txt").read_text(encoding="utf-8").splitlines()
    if not line.startswith("#")
    for word in line.split()
)


@dataclass(frozen=True)
class Pictures:
    """images [N, H, W, C] uint8; picture i carries labels[offsets[i]:offsets[i + 1]], ids into label_names.

    `symmetric` [N] bool says which pictures mean the same in a mirror; all of them if not given.
    """

    images: Tensor
    labels: Tensor
    offsets: Tensor
    label_names: tuple[str, ...]
    symmetric: Tensor | None = None

    def __len__(self) -> int:
        return len(self.images)

    def to(self, device: torch.device) -> "Pictures":
        """The same in the memory of a device."""
        tensors = {f.name: value.to(device) for f in fields(self) if isinstance(value := getattr(self, f.name), Tensor)}
        return replace(self, **tensors)

    @property
    def device(self) -> torch.device:
        return self.images.device

    def pixels(self, index: Tensor) -> Tensor:
        """[B] -> [B, C, H, W] float in [-1, 1]."""
        return self.images[index].permute(0, 3, 1, 2).float() / 127.5 - 1

    def weights(self, index: Tensor) -> Tensor:
        """[B] -> label weights [B, classes]: 1 for every label that the picture carries."""
        y = torch.zeros(len(index), len(self.label_names) + 1, device=self.device)
        return y.scatter_(1, self._table[index], 1)[:, :-1]

    @cached_property
    def _table(self) -> Tensor:
        """The labels of every picture in a row, filled up with a number beyond them [N, most]."""
        counts = self.offsets.diff()
        place = torch.arange(int(counts.max()), device=self.device)
        there = place < counts[:, None]
        table = torch.full(there.shape, len(self.label_names), device=self.device)
        table[there] = self.labels.long()  # row by row, as they lie
        return table

    def mirrors(self, index: Tensor) -> Tensor:
        """[B] -> [B] bool: whether a picture may be mirrored."""
        return torch.ones_like(index, dtype=torch.bool) if self.symmetric is None else self.symmetric[index]

    def split(self, held_out: int, seed: int = 0) -> tuple[Tensor, Tensor]:
        """Indices for (training, validation): a fixed random `held_out` are kept for validation."""
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))
        return order[held_out:], order[:held_out]


def load(path: Path, size: int | None = None, **filters) -> Pictures:
    """Pictures of a packed .npz (see icons.py), or of FOLDER/class/*.png cropped and resized to `size`."""
    if path.is_dir():
        return load_folder(path, size or 32)
    if path.suffix != ".npz" or not path.is_file():
        raise ValueError(f"no training data at '{path}': expected a packed .npz or a folder of class subfolders.")
    pictures = load_packed(path, **filters)
    side = pictures.images.shape[1]
    if size is not None and side != size:
        raise ValueError(f"'{path}' holds pictures of {side} x {side} pixels, but the network takes {size} x {size}.")
    return pictures


def load_fitting(path: Path, config: TrainConfig) -> tuple[TrainConfig, Pictures]:
    """The pictures of a configuration, and the configuration with a class for each of their labels. ValueError if none
    are left to train on."""
    pictures = load(path, config.network.input_size, **config.filters)
    if len(pictures) <= config.held_out:
        raise ValueError(
            f"'{path}' has {len(pictures)} pictures, of which {config.held_out} are held out; change that by --set "
            "held_out=8."
        )
    return replace(config, network=replace(config.network, num_classes=len(pictures.label_names))), pictures


def load_packed(
    path: Path,
    sets: Iterable[str] = (),
    categories: Iterable[str] = (),
    min_sets: int = 1,
    min_count: int = 1,
) -> Pictures:
    """A packed .npz, filtered.

    `sets` and `categories` name what to keep (all if empty), `min_sets` asks that as many of the kept sets draw the
    same subject, `min_count` drops labels with fewer pictures.
    """
    data = read_packed(path)
    sources, subjects = np.array([name.split(":", 1) for name in data["names"]]).T
    keep = np.ones(len(sources), dtype=bool)
    for values, wanted in ((sources, list(sets)), (data["categories"], list(categories))):
        if wanted:
            keep &= np.isin(values, wanted)
    kept_subjects, counts = np.unique(subjects[keep], return_counts=True)
    keep &= np.isin(subjects, kept_subjects[counts >= min_sets])
    chosen = np.flatnonzero(keep)
    if not len(chosen):
        raise ValueError(f"no picture of '{path}' passes the filters.")
    labels, offsets = data["labels"], data["label_offsets"]
    rows = [labels[offsets[i] : offsets[i + 1]] for i in chosen]
    ids, counts = np.unique(np.concatenate(rows), return_counts=True)
    ids = ids[counts >= min_count]
    rows = [np.searchsorted(ids, row[np.isin(row, ids)]) for row in rows]
    return Pictures(
        torch.from_numpy(data["images"][chosen]),
        torch.from_numpy(np.concatenate(rows)),
        torch.from_numpy(np.cumsum([0] + [len(row) for row in rows])),
        tuple(str(name) for name in data["label_names"][ids]),
        torch.tensor([means_the_same_mirrored(subjects[i], data["categories"][i]) for i in chosen]),
    )


def means_the_same_mirrored(subject: str, category: str) -> bool:
    """Whether an icon of that name, such as "red-fox", and category shows nothing that reads from one side."""
    return category not in HANDED_CATEGORIES and HANDED_WORDS.isdisjoint(subject.lower().split("-"))


def load_folder(path: Path, size: int) -> Pictures:
    """Pictures of FOLDER/class/*: centre-cropped to a square, resized to `size`, on white; one label each."""
    classes = sorted(folder.name for folder in path.iterdir() if folder.is_dir())
    if not classes:
        raise ValueError(f"'{path}' has no class subfolders; put the images of a class into a folder of its name.")
    files = [
        (file, label)
        for label, name in enumerate(classes)
        for file in sorted((path / name).iterdir())
        if file.suffix.lower() in SUFFIXES and file.is_file()
    ]
    if not files:
        raise ValueError(f"the class subfolders of '{path}' hold no images ({', '.join(sorted(SUFFIXES))}).")
    images = np.stack([_square(file, size) for file, _ in tqdm(files, desc="reading images")])
    labels = torch.tensor([label for _, label in files])
    return Pictures(torch.from_numpy(images), labels, torch.arange(len(files) + 1), tuple(classes))


def _square(file: Path, size: int) -> np.ndarray:
    try:
        with Image.open(file) as opened:
            image = opened.convert("RGBA")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"'{file}' cannot be read as an image: {error}.") from error
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    image = image.crop((left, top, left + side, top + side)).resize((size, size), Image.Resampling.BOX)
    white = Image.new("RGBA", image.size, "white")
    return np.asarray(Image.alpha_composite(white, image).convert("RGB"))
