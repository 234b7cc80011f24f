"""Runs inside a host's Python, without a server: python run.py CHECKOUT PACK CHECKPOINT [CASE ...], for
`hosted_pack.report`.

What other nodes do to a model or a sampler, beside a token route and Sparse Guidance.
"""

import importlib
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent))

from hosted_pack import report

wanted = importlib.import_module("setting").wanted  # the host can be imported from here on
KINDS = (
    "wrapped", "tiles", "scales", "caches", "patches", "together", "networks", "around", "inputs", "labels", "reads",
)  # fmt: skip
report({name: case for kind in KINDS for name, case in importlib.import_module(kind).CASES.items()}, wanted)
