"""Runs inside a host's Python: python peak.py CHECKOUT PACK CHECKPOINT WEIGHT_DTYPE, prints by how many bytes loading
the checkpoint has raised the process's peak of memory."""

import resource
import sys

from hosted_pack import load_pack

checkout, pack, checkpoint, weight_dtype = sys.argv[1:5]
part = load_pack(checkout, pack)
load = part("nodes.host.own.loading").load


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


before = peak()
model = load(checkpoint, weight_dtype)
print(peak() - before)
