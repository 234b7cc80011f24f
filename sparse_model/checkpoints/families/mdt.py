"""Checkpoints of sail-sg/MDT, the second version."""

import re

from ...method.prediction import Epsilon
from ...method.schedule import constant
from ...method.sparsity import Sparsity
from ...networks.mdt import MDTConfig
from ..clues import Clues
from ..spec import ModelSpec
from .dit import CHANNELS
from .guesses import side

MASK_RATIO = 0.3  # of the published training, which draws ratios from 0.3 to 0.5
PUBLISHED, STEPS = constant(0.0, 0.0, 4.0, "CFG"), 250  # of the authors' script for single pictures
EXTRA = re.compile(r".*\.relative_position_index$")  # which row of its table stands for which two cells


def recognise(clues: Clues) -> ModelSpec | None:
    if not clues.have("en_inblocks.0.attn.qkv.weight", "sideblocks.0.attn.qkv.weight", "mask_token", "pos_embed"):
        return None
    width, channels, patch, _ = clues.shape("x_embedder.proj.weight", 4)
    config = MDTConfig(
        input_size=side(clues, patch),
        patch_size=patch,
        in_channels=channels,
        width=width,
        depth=1 + clues.layers("de_blocks."),
        heads=clues.shape("en_inblocks.0.attn.rel_pos_bias.relative_position_bias_table", 2)[1],
        mlp_ratio=clues.shape("en_inblocks.0.mlp.fc1.weight", 2)[0] / width,
        num_classes=clues.shape("y_embedder.embedding_table.weight", 2)[0] - 1,
        half=clues.layers("en_inblocks."),
        learn_sigma=clues.shape("final_layer.linear.weight", 2)[0] // patch**2 == 2 * channels,
    )
    note = CHANNELS if channels == 4 else ""
    return ModelSpec("mdt", config, Epsilon(), Sparsity(mask=MASK_RATIO), schedule=PUBLISHED, steps=STEPS, note=note)
