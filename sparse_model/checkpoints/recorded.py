"""The route that a file of weights records, though it is no model: a LoRA's."""

import json
from pathlib import Path

from ..files import FileError
from ..method.sparsity import Sparsity
from ..tensors import opened
from .checkpoint import explained
from .metadata import KEY

OPTION = "tread_config"
"""The name that SimpleTuner's configuration gives it."""


def recorded_route(path: Path) -> Sparsity | None:
    """The route in a safetensors file's metadata, None if it has none; CheckpointError if that cannot be read.

    Either `sparse_model`, JSON with the route under "sparsity" as in this project's checkpoints, or `tread_config`, as
    a trainer's configuration has it. No trainer that is known writes one of these so far.
    """
    if path.suffix != ".safetensors":
        return None
    with explained(path), opened([path]) as contents:
        metadata = contents.metadata
        try:
            if KEY in metadata:
                return Sparsity.from_dict(json.loads(metadata[KEY])["sparsity"])
            return Sparsity.from_trainer(metadata[OPTION]) if OPTION in metadata else None
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            key = KEY if KEY in metadata else OPTION
            raise FileError(f"its '{key}' metadata holds no route; paste the trainer's JSON instead.") from error
