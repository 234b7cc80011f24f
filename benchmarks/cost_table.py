"""Multiply-adds per step beside table 2 of arXiv 2601.01608: python benchmarks/cost_table.py"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.timing import CFG, UNGUIDED, keep, spec_of
from sparse_model.cost import step_cost
from sparse_model.method.schedule import PRESETS

PUBLISHED = {
    "unguided": (UNGUIDED, 114.42),
    "CFG": (CFG, 228.84),
    "SG_FLOPS": (PRESETS["SG_FLOPS"], 97.67),
    "SG_FID": (PRESETS["SG_FID"], 173.16),
}


def main() -> None:
    spec, rows = spec_of("SiT-XL/2"), []
    print(f"{'SiT-XL/2, r 2 -> 24':20} {'paper':>8} {'apart':>8} {'one pass':>9}   GMACs per step, 40 steps")
    for name, (schedule, published) in PUBLISHED.items():
        cost = step_cost(spec, schedule, 40)
        apart, together = ((value / 1e9) for value in (cost.strong + cost.weak, cost.total))
        rows.append({"name": name, "paper": published, "apart": round(apart, 2), "one pass": round(together, 2)})
        print(f"{name:20} {published:8.2f} {apart:8.2f} {together:9.2f}")
    print(keep("cost_table", rows))


if __name__ == "__main__":
    main()
