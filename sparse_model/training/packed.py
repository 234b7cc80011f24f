"""A packed .npz of pictures (icons.py says what is in it), checked before anything is done with it."""

from pathlib import Path

import numpy as np

ARRAYS = {  # name -> dimensions, kinds of numpy
    "images": (4, "u"), "names": (1, "U"), "categories": (1, "U"), "labels": (1, "iu"), "label_offsets": (1, "iu"),
    "label_names": (1, "U"),
}  # fmt: skip


def read_packed(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a packed .npz; ValueError in one sentence if it is damaged or something else."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in ARRAYS}
        _check(arrays)
    except Exception as error:  # numpy reads headers as Python's literals: a damaged one raises whatever it likes
        raise ValueError(
            f"'{path}' is not a packed .npz of pictures, or is damaged; make it again: python -m "
            "sparse_model.training.icons --size 32 --out icons-32.npz."
        ) from error
    return arrays


def _check(arrays: dict[str, np.ndarray]) -> None:
    """ValueError if the arrays contradict each other."""
    images, names, offsets, labels = (arrays[name] for name in ("images", "names", "label_offsets", "labels"))
    count = len(images)
    sound = (
        all(arrays[name].ndim == ndim and arrays[name].dtype.kind in kinds for name, (ndim, kinds) in ARRAYS.items())
        and count > 0
        and images.dtype == np.uint8
        and images.shape[1] == images.shape[2] > 0
        and images.shape[3] == 3
        and len(names) == len(arrays["categories"]) == len(offsets) - 1 == count
        and all(":" in name for name in names)
        and offsets[0] == 0
        and offsets[-1] == len(labels)
        and (np.diff(offsets.astype(np.int64)) >= 0).all()
        and (not len(labels) or (labels.min() >= 0 and labels.max() < len(arrays["label_names"])))
    )
    if not sound:
        raise ValueError("the arrays do not belong together")
