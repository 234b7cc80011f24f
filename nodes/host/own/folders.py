"""Folders of published models among the host's models, told by what their config.json says."""

from collections.abc import Callable
from pathlib import Path

import folder_paths

from ....sparse_model.files import model_folders

Known = Callable[[Path], object]


def folder_names(kind: str, known: Known) -> list[str]:
    """The folders that `known` accepts below models/<kind>, and below models/diffusion_models, where people put all of
    a published model at once."""
    return list(dict.fromkeys(name for root in _roots(kind) for name in model_folders(root, known)))


def folder_path(name: str, kind: str, known: Known, what: str) -> Path:
    """The folder of a name; ValueError if it does not hold `what`."""
    for root in _roots(kind):
        if name in model_folders(root, known):
            return root / name
    raise ValueError(f"There is no folder '{name}' with {what} in models/{kind}; put it there.")


def _roots(kind: str) -> list[Path]:
    return [Path(root) for place in (kind, "diffusion_models") for root in folder_paths.get_folder_paths(place)]
