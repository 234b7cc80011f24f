"""The network and the prompts of fixtures/microdit.npz; tests/networks/test_microdit.py says what is in it."""

import torch
from formula import formula

from sparse_model.conditions.text import Text
from sparse_model.networks.microdit import MicroDiTConfig

TINY = MicroDiTConfig(
    width=64, depth=4, mixer_width=48, mixer_depth=2,
    attention=(48, 48, 32, 48, 64, 64), hidden=(128, 192, 32, 112, 128, 176), experts=(0, 4, 0, 4, 0, 0),
    input_size=8, text_width=24, text_hidden=176, head_width=8,
)  # fmt: skip
PROMPT = Text(4 * formula("text", (2, 1, 6, 24))[:, 0], torch.ones(2, 6, dtype=torch.bool))
