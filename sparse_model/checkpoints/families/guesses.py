"""What several families read from a file, and what they say of it where it is a guess."""

from ...files import FileError
from ...networks.layers import TransformerConfig
from ..clues import Clues

DROPPED_UNPREDICTED = (
    "Tokens that its mask drops get no prediction: guide it by CFG, or give it a route (convert --route), inside which "
    "they wait"
)
"""Of networks whose mask is in front of everything that predicts."""


def side(clues: Clues, patch: int) -> int:
    """Side of the network's input, from its table of positions [1, tokens, D]; FileError if that is no square."""
    tokens = clues.shape("pos_embed", 3)[1]
    grid = round(tokens**0.5)
    if grid**2 != tokens:
        raise FileError(f"its table of {tokens} positions is not that of a square picture.")
    return grid * patch


def heads_of(width: int, config: type[TransformerConfig]) -> tuple[int, str]:
    """The heads of a network of this width, which no shape tells, and a note if the width is not a published one."""
    published = {width: heads for width, _, heads in config.SIZES.values()}
    if width in published:
        return published[width], ""
    heads = max(width // 64, 1)
    return heads, guessed(heads, width // heads)


def guessed(heads: int, width: int) -> str:
    return f"Nothing in the file tells the number of its attention heads: {heads} of {width} channels are assumed"


def notes(*parts: str) -> str:
    """Sentences of a note, without the last full stop."""
    return ". ".join(filter(None, parts))
