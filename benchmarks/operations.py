"""Operations of PyTorch that one step of a network takes, views left out: what a GPU has to be told, and at batch 1
waits for.

    python benchmarks/operations.py

Published depths, toy widths: the count is that of the whole network.
"""

import argparse
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class Operations(TorchDispatchMode):
    """Counts PyTorch's operations by their names, but for those that only look at memory in another way."""

    def __init__(self):
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        returned = operation._schema.returns
        looks = bool(returned) and all(r.alias_info is not None and not r.alias_info.is_write for r in returned)
        if not looks and operation.namespace == "aten":
            self.counts[operation.overloadpacket.__name__] += 1
        return operation(*args, **(kwargs or {}))

    @classmethod
    def of(cls, step: Any) -> Counter[str]:
        with cls() as counted:
            step()
        return counted.counts


def main() -> None:
    from benchmarks.timing import CFG, Step, network_of, spec_of

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["SiT-XL/2", "TR-DiT-2.5B", "HDM", "PRX"])
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--most", type=int, default=0, help="how many of the most frequent operations are listed")
    options = parser.parse_args()
    for name in options.models:
        spec, published = spec_of(name, toy=True), spec_of(name).config
        deep = {field: getattr(published, field) for field in ("depth", "levels") if field in vars(published)}
        spec = replace(spec, config=replace(spec.config, **deep))
        network = network_of(spec, "cpu", getattr(torch, options.dtype))
        for plan, schedule in (("CFG", CFG), (spec.schedule.rule, spec.schedule)):
            step = Step(network, spec, schedule, 1)
            with torch.inference_mode():
                step()  # makes what is made once
                counts = Operations.of(step)
            print(f"{name} {plan}: {counts.total()}", dict(counts.most_common(options.most)) or "")


if __name__ == "__main__":
    main()
