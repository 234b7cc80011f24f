"""Folders of published models among the host's models, told by what their config.json says."""

from collections.abc import Callable
from pathlib import Path

import folder_paths

from ....sparse_model.files import model_folders

BUNDLED = "sparse_guidance"
"""The host's name of the folder of this pack's own models: its own loaders cannot read them and do not list them."""
PLACES = ("diffusion_models", BUNDLED)
Known = Callable[[Path], object]


def model_names() -> list[str]:
    """Files in models/diffusion_models and the bundled ones, each name once."""
    return list(dict.fromkeys(name for place in PLACES for name in folder_paths.get_filename_list(place)))


def model_path(name: str, *more: str) -> str | None:
    """Where a file of `model_names` is, or of the host's folders `more`; a file of the user's goes before a bundled one
    of its name. None if there is none."""
    return next(filter(None, (folder_paths.get_full_path(place, name) for place in (*PLACES, *more))), None)


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
