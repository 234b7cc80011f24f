"""What the host's transformer_options carry during a guided run, and how networks read it.

Between the calls of a run our entry is the Run; during a call it is the Evaluation of that step's branches. The host
labels the chunks of its batch by their place in its list of conditions, which is the place of a branch in ours.
"""

import uuid
from collections.abc import Sequence
from typing import Any, Protocol

from torch import Tensor

from ...sparse_model.method.branches import DENSE, Evaluation

KEY = "sparse_guidance"
"""Our entry in transformer_options, and the name of our wrappers and additional models."""

DIRECT = "sparse_guidance_direct"
"""In transformer_options: whether the host makes the batches itself, of its own, and hands them to the model itself."""

WRAPPERS = ("calc_cond_batch", "apply_model", "diffusion_model")
"""What may stand around the host's functions between a batch and the blocks of a network."""

TRUSTED = ("comfy", "comfy_api", "comfy_extras")
"""Packages of the host, whose own nodes treat all chunks of a batch alike."""


class Strong(Protocol):
    """A run, as networks see it."""

    strong: Evaluation | None


def picture_shape(latent: Tensor, packed: Sequence[Sequence[int]] | None) -> tuple[int, ...]:
    """The shape of the picture or video [B, C, ...] in what is sampled. The host packs it with its sound, say, into
    [B, 1, N], and passes the shapes of what is `packed`: the picture comes first. One alone may be a part of that."""
    return tuple(packed[0]) if packed and len(packed) > 1 else tuple(latent.shape)


class BranchId(uuid.UUID):
    """The host's id of a condition in a further branch that carries it too. Other nodes keep what they cache by that
    id, so branches need ids of their own; `condition` says that it is one input all the same."""

    def __init__(self, condition: uuid.UUID, branch: int):
        super().__init__(int=uuid.uuid5(condition, str(branch)).int)
        object.__setattr__(self, "condition", condition)


def with_entry(model_options: dict[str, Any], entry: Strong | Evaluation, direct: bool = False) -> dict[str, Any]:
    """A copy of model options in which transformer_options carry our entry. `direct`: they go to the host's own
    function for a batch of conditions, with nothing of another node in these."""
    direct = direct and "model_function_wrapper" not in model_options
    options = model_options.get("transformer_options", {})
    return {**model_options, "transformer_options": {**options, KEY: entry, DIRECT: direct}}


def foreign(part: Any) -> bool:
    """Whether a function or object is another node's, not the host's and not ours."""
    module = getattr(part, "__module__", None) or ""
    return module.split(".")[0] not in TRUSTED and not module.startswith(__name__.removesuffix("nodes.host.wire"))


def wrapped(transformer_options: dict[str, Any], kinds: Sequence[str] = WRAPPERS[-1:]) -> bool:
    """Whether a wrapper of another node stands around the network, or around other functions of the host."""
    given = transformer_options.get("wrappers", {})
    return any(foreign(each) for kind in kinds for wrappers in given.get(kind, {}).values() for each in wrappers)


def touched(transformer_options: dict[str, Any]) -> bool:
    """Whether another node may have changed a batch of the host's on its way to the blocks of a network."""
    return not transformer_options.get(DIRECT, False) or wrapped(transformer_options, WRAPPERS)


def evaluation_of(transformer_options: dict[str, Any], x: Tensor, times: Tensor) -> Evaluation:
    """Which branch each chunk of a batch x [N, ...] at `times` [N] answers. Calls that other nodes make between ours
    (SLG, PAG) see the strong branch: they compare their own prediction with it.

    ValueError where another node has put the batch together anew and it cannot be told whose its rows are.
    """
    asked = _asked(transformer_options)
    if asked is None:
        return DENSE
    labels = transformer_options["cond_or_uncond"]
    inputs = [getattr(given, "condition", given) for given in transformer_options["uuids"]]
    chunks = _chunks(transformer_options, x, times)
    if chunks is None and not asked.sparse:
        return DENSE
    if chunks is None:
        raise ValueError(
            f"Sparse Guidance cannot tell which of {len(x)} rows belong to which of its {len(labels)} predictions: "
            "another node puts the batch together anew, as tiled diffusion does; let it work on one tile at a time, or "
            "take it out."
        )
    found = [(inputs[chunk], part) for chunk, part in chunks]
    return asked.labelled([labels[chunk] for chunk, _ in chunks], found)


def check_rows(rows: int, expected: int, predictions: int) -> None:
    """ValueError for another number of rows than a batch of so many predictions has."""
    if rows != expected:
        raise ValueError(
            f"Sparse Guidance needs the {expected} rows of its {predictions} predictions in one pass of the network, "
            f"but another node runs {rows} of them at a time; take that node out."
        )


def of_sample(transformer_options: dict[str, Any], sample: int) -> dict[str, Any]:
    """What these options say of the batch, for a call with one of its samples alone."""
    found, asked = {}, _asked(transformer_options)
    if asked is not None:
        found[KEY] = asked.of(sample)
    if "sigmas" in transformer_options:
        found["sigmas"] = transformer_options["sigmas"][sample : sample + 1]
    return found


def _asked(transformer_options: dict[str, Any]) -> Evaluation | None:
    entry = transformer_options.get(KEY)
    return entry if isinstance(entry, Evaluation) else getattr(entry, "strong", None)


def places_of(transformer_options: dict[str, Any], x: Tensor, times: Tensor) -> tuple[int, ...]:
    """For every chunk of an evaluation of that batch its place in the host's lists of labels."""
    return tuple(chunk for chunk, _ in _chunks(transformer_options, x, times))


def _chunks(transformer_options: dict[str, Any], x: Tensor, times: Tensor) -> list[tuple[int, int]] | None:
    return chunks_of(x, times, len(transformer_options["cond_or_uncond"]), len(transformer_options["sigmas"]))


def chunks_of(x: Tensor, times: Tensor, chunks: int, size: int) -> list[tuple[int, int]] | None:
    """(chunk, part) of every `size` rows of a batch x [N, ...] at `times` [N]; None if it cannot be told.

    The host makes a batch of `chunks` of `size` rows. Nodes that cut pictures into parts (tiles) may join the batches
    of several parts, or all parts of each chunk. All chunks of a part are one picture, which tells these apart.
    """
    whole = [(chunk, 0) for chunk in range(chunks)]
    if len(x) == chunks * size or (len(times) < len(x) and len(x) % chunks == 0):  # one noise level for several rows
        return whole
    if len(x) % (chunks * size):
        return None
    parts = len(x) // (chunks * size)
    if _one_picture(x.unflatten(0, (parts, chunks, size)).transpose(0, 1)):
        return [(chunk, part) for part in range(parts) for chunk in range(chunks)]
    if _one_picture(x.unflatten(0, (chunks, parts, size))):
        return [(chunk, part) for chunk in range(chunks) for part in range(parts)]
    return None


def _one_picture(chunks: Tensor) -> bool:
    """Whether all chunks [chunks, ...] are equal, of a picture or of noise levels."""
    return all(bool((other == chunks[0]).all()) for other in chunks[1:])
