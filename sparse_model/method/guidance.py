"""Guidance rules: what the weak branch is, and how two predictions become one."""

from dataclasses import dataclass

from torch import Tensor


def guide(strong: Tensor, weak: Tensor, omega: float) -> Tensor:
    """omega * strong + (1 - omega) * weak, for any two predictions of one quantity (arXiv 2601.01608, eq. 3, 7, 8)."""
    return weak + omega * (strong - weak)


@dataclass(frozen=True)
class Rule:
    """How the weak branch differs from the strong one, besides its sparsity.

    `condition` of the weak branch: "same" as the strong one's, "null", or an independent "random" one.
    `auxiliary`: it is evaluated by a second, weaker checkpoint.
    """

    condition: str
    auxiliary: bool = False


RULES: dict[str, Rule] = {
    "SG": Rule("same"),  # eq. 7
    "CFG": Rule("null"),  # eq. 3; the same rule as CFG + SG, at gamma 0
    "CFG + SG": Rule("null"),  # eq. 8
    "ICG": Rule("random"),  # arXiv 2407.02687
    "AG": Rule("same", auxiliary=True),  # arXiv 2406.02507; AG + SG at gamma 0
    "AG + SG": Rule("same", auxiliary=True),
}
