"""What a training run goes on from: a folder of safetensors and JSON, in which nothing can run code."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from ..tensors import finite
from ..writing import reason

STEP, OPTIMIZERS = "step.json", "optimizers"


def write_state(folder: Path, networks: Mapping[str, nn.Module], optimizers: Sequence[Optimizer], step: int) -> None:
    """Writes NAME.safetensors of every network, the optimizers' tensors, and the step.

    OSError in one sentence if that fails; then the folder is gone.
    """
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed while it saved
    try:
        folder.mkdir()
        for name, network in networks.items():
            _write_tensors(network.state_dict(), folder / f"{name}.safetensors")
        _write_tensors(_optimizer_tensors(optimizers), folder / f"{OPTIMIZERS}.safetensors")
        (folder / STEP).write_text(json.dumps(step), encoding="utf-8")
    except (OSError, SafetensorError) as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise OSError(
            f"'{folder}' could not be written: {reason(error)}; make room and call the same again: it goes on from the "
            "last state that was saved."
        ) from error


def read_state(folder: Path, networks: Mapping[str, nn.Module], optimizers: Sequence[Optimizer]) -> int:
    """Puts back what `write_state` wrote, once all of it is read and checked -> the step.

    ValueError in one sentence if a file is missing or damaged, or is one of other networks.
    """
    try:
        states = {name: load_file(folder / f"{name}.safetensors") for name in networks}
        for name, network in networks.items():
            _check_shapes(folder, states[name], network)
        kept = _optimizer_states(load_file(folder / f"{OPTIMIZERS}.safetensors"), optimizers)
        step = json.loads((folder / STEP).read_text(encoding="utf-8"))
        if type(step) is not int or step < 0:
            raise KeyError("it names no step")
        for name, network in networks.items():
            network.load_state_dict(states[name])
        for optimizer, state in zip(optimizers, kept, strict=True):
            optimizer.load_state_dict(state)
    except OtherNetwork:
        raise
    except (OSError, SafetensorError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"'{folder}' is damaged or incomplete ({reason(error)}), so the run cannot go on from it; remove it to "
            "begin anew, or name another --out."
        ) from error
    return step


class OtherNetwork(ValueError):
    """A state of a network of other sizes or labels."""


def _check_shapes(folder: Path, state: Mapping[str, Tensor], network: nn.Module) -> None:
    wanted = network.state_dict()
    for key in sorted(state.keys() ^ wanted.keys()):
        raise OtherNetwork(_other(folder, f"{key} is in {'it' if key in state else 'this one'} alone"))
    for key, value in wanted.items():
        if state[key].shape != value.shape:
            raise OtherNetwork(_other(folder, f"{key} is {list(state[key].shape)} there and {list(value.shape)} here"))
        if state[key].is_floating_point() and not finite(state[key]):
            raise KeyError(f"{key} holds values that are not finite")


def _other(folder: Path, difference: str) -> str:
    return (
        f"'{folder}' is the state of another network ({difference}); name another --out, or the configuration and the "
        "pictures that it was begun with."
    )


def _optimizer_tensors(optimizers: Sequence[Optimizer]) -> dict[str, Tensor]:
    """OPTIMIZER.PARAMETER.NAME, by their numbers -> tensor."""
    return {
        f"{number}.{parameter}.{name}": value
        for number, optimizer in enumerate(optimizers)
        for parameter, values in optimizer.state_dict()["state"].items()
        for name, value in values.items()
    }


def _optimizer_states(tensors: Mapping[str, Tensor], optimizers: Sequence[Optimizer]) -> list[dict[str, Any]]:
    """What each optimizer's load_state_dict takes."""
    found = [{"state": {}, "param_groups": optimizer.state_dict()["param_groups"]} for optimizer in optimizers]
    parameters = [[p for group in optimizer.param_groups for p in group["params"]] for optimizer in optimizers]
    for key, value in tensors.items():
        number, parameter, name = key.split(".")
        shape = parameters[int(number)][int(parameter)].shape
        if value.ndim and value.shape != shape:
            raise KeyError(f"{key} of the optimizers is {list(value.shape)}, not {list(shape)}")
        found[int(number)]["state"].setdefault(int(parameter), {})[name] = value
    return found


def _write_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    save_file({name: value.contiguous() for name, value in tensors.items()}, path)
