"""Values that a step reads back from the device, each of which waits for everything that the device has been told."""

from collections.abc import Callable
from typing import Any

import torch
from comfy.patcher_extension import WrappersMP
from setting import MODELS, SparseGuider, constant, guided, host, routed, sampled
from torch.utils._python_dispatch import TorchDispatchMode

SYNCHRONISING = {"_local_scalar_dense", "equal", "nonzero", "masked_select", "_unique2", "unique_dim"}
"""Operations whose result has to be known before the next one can be launched; indexing by a mask is one too."""


class Reads(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        name = function.name().partition("::")[2].partition(".")[0]
        indices = args[1] if name.startswith("index") and isinstance(args[1], list | tuple) else ()
        by_mask = any(index is not None and index.dtype == torch.bool for index in indices)
        self.count += name in SYNCHRONISING or by_mask
        return function(*args, **(kwargs or {}))


def per_step(act: Callable[[int], Any]) -> float:
    """Reads in each of eight further steps of what samples so many."""
    counts = []
    for steps in (4, 12):
        with Reads() as reads:
            act(steps)
        counts.append(reads.count)
    return (counts[1] - counts[0]) / 8


def reads() -> dict[str, Any]:
    """Of models without anything of other nodes: unguided, and with two and three branches."""
    found = {}
    for name in ("FLUX.1", "Qwen-Image", "Wan 2.1", "own"):
        model = MODELS["own"]() if name == "own" else host(name)
        patcher = model[0] if name == "own" else routed(model[0])
        found[name] = {"stock": per_step(lambda steps, model=model: sampled(model[0], model, steps=steps))}
        for rule in ("SG", "CFG + SG", "SG beside CFG"):
            planned = guided(patcher, constant(0.25, 0.75, 2.0, rule))
            found[name][rule] = per_step(lambda steps, p=planned, model=model: sampled(p, model, steps=steps))
    return found


def guider_reads() -> float:
    """Of Sparse Guider."""
    model = host()
    _, _, positive, _ = model
    plan = constant(0.25, 0.75, 2.0)

    class Guider(SparseGuider):
        """Made as `sampled` makes a stock one."""

        def __init__(self, patcher: Any):
            super().__init__(patcher, plan, positive)

        def set_conds(self, *_: Any) -> None:
            pass

    return per_step(lambda steps: sampled(routed(model[0]), model, steps=steps, guider=Guider))


def foreign_reads() -> float:
    """Under a wrapper of another node, which may change the noise level of one chunk alone."""
    model = host()
    wrapped = guided(routed(model[0]), constant(0.25, 0.75, 2.0))
    wrapped.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "any", lambda run, *args, **kwargs: run(*args, **kwargs))
    return per_step(lambda steps: sampled(wrapped, model, steps=steps))


CASES: dict[str, Callable[[], Any]] = {
    "reads": reads,
    "reads of a guider": guider_reads,
    "foreign reads": foreign_reads,
}
