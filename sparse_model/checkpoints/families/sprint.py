"""Checkpoints of snap-research/Sprint."""

import re
from dataclasses import replace

from ...method.prediction import Flow
from ...method.schedule import PRESETS
from ...method.sparsity import Sparsity
from ...method.tokens import STRUCTURED
from ...networks.sprint import SprintConfig
from ..clues import Clues
from ..spec import ModelSpec

MASK_RATIO = 0.75  # of the published pre-trainings, ImageNet 256 and 512
STEPS = 250  # of the published samples
PUBLISHED = replace(PRESETS["PDG"], selection=STRUCTURED)  # at other rates, the subsets of the published pre-trainings
EXTRA = re.compile(r"projectors\.")  # what the training of the REPA variant aligned features with


def recognise(clues: Clues) -> ModelSpec | None:
    """Nothing in the shapes tells 256 from 512 pixels; the published file names do."""
    if not clues.have("x_embedder.proj.weight", "mask_token", "renoise_linear.weight"):
        return None
    if not clues.have("middle_blocks.0.attn.q_norm.weight"):
        return None
    width, pixels = clues.shape("x_embedder.proj.weight", 2)
    swiglu = clues.have("middle_blocks.0.mlp.fc1_g.weight")
    config = SprintConfig(
        input_size=64 if "512" in clues.name else 32,
        in_channels=pixels // SprintConfig.patch_size**2,
        width=width,
        depth=clues.layers("middle_blocks."),
        heads=width // clues.shape("middle_blocks.0.attn.q_norm.weight", 1)[0],
        mlp_ratio=clues.shape(f"middle_blocks.0.mlp.{'fc1_g' if swiglu else 'fc1'}.weight", 2)[0] / width,
        num_classes=clues.shape("y_embedder.embedding_table.weight", 2)[0] - 1,
        encoder_depth=clues.layers("encoder_blocks."),
        decoder_depth=clues.layers("decoder_blocks."),
        swiglu=swiglu,
    )
    return ModelSpec("sprint", config, Flow(), Sparsity(mask=MASK_RATIO), schedule=PUBLISHED, steps=STEPS)
