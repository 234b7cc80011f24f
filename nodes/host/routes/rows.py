"""What a block of the host is called with, for some rows of the batch or some tokens of the sequence."""

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ....sparse_model.method.tokens import put, take


def flat(tokens: Tensor) -> Tensor:
    """[N, T, H, W, D] -> [N, T * H * W, D]; [N, L, D] as it is."""
    return tokens.flatten(1, -2)


def pick(value: Tensor, index: Tensor, dim: int = 1) -> Tensor:
    """What stands at index [B, K] of each row along a dimension: value [B or 1, ..., L, ...] -> [B, ..., K, ...]."""
    return take(value.movedim(dim, 1), through_rows(index, value.shape[0], value.shape[dim])).movedim(1, dim)


def put_back(value: Tensor, index: Tensor, kept: Tensor) -> Tensor:
    """value [B, L, D] with the tokens at index [B, K] of each row replaced by kept [B, K, D]."""
    return put(value, through_rows(index, *value.shape[:2]), kept)


def through_rows(index: Tensor, rows: int, length: int) -> Tensor:
    """Positions within each row [B, K], counted through all rows; as they are where one row serves all."""
    return index if rows == 1 else index + torch.arange(rows, device=index.device).unsqueeze(1) * length


def stretched(value: Tensor, length: int) -> Tensor:
    """[N, n, ...], one for each of n equal stretches of a sequence -> [N, length, ...]; the last one may be shorter."""
    repeats = -(-length // value.shape[1])
    return value.repeat_interleave(repeats, dim=1)[:, :length]


def rows_of(value: Tensor, total: int, rows: slice) -> Tensor:
    """Some of `total` rows of a value; one with another first dimension has no rows and stays as it is."""
    return value[rows] if value.ndim and value.shape[0] == total else value


def stacked_rows_of(value: Tensor, total: int, rows: slice) -> Tensor:
    """The same where several batches of `total` rows may stand one behind the other: [n * total, ...]."""
    if value.ndim == 0 or value.shape[0] % total:
        return value
    return value.unflatten(0, (-1, total))[:, rows].flatten(0, 1)


def repeated(value: Tensor, total: int) -> Tensor:
    """[b, ...] -> [total, ...], batch behind batch; one row serves all as it is."""
    return value if len(value) in (1, total) else value.repeat(total // len(value), *[1] * (value.ndim - 1))


def folded_rows_of(value: Tensor, total: int, rows: slice) -> Tensor:
    """The same where rows are folded into the second dimension: [1, total * n, D] -> [1, rows * n, D]."""
    return value.unflatten(1, (total, -1))[:, rows].flatten(1, 2)


def map_tensors(change: Callable[[Tensor], Tensor], value: Any) -> Any:
    """`value` with every tensor in it changed: in tuples, lists and the dataclasses that carry modulation."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, list):
        return [map_tensors(change, part) for part in value]
    if isinstance(value, tuple):
        parts = [map_tensors(change, part) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value)]
        return dataclasses.replace(value, **{name: map_tensors(change, getattr(value, name)) for name in names})
    return value


def tensors(value: Any) -> list[Tensor]:
    """Every tensor in `value`: a dictionary, or what `map_tensors` takes."""
    found: list[Tensor] = []
    map_tensors(lambda tensor: found.append(tensor) or tensor, [*value.values()] if isinstance(value, dict) else value)
    return found
