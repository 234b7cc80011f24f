"""Checkpoints of Anima-Lab/MaskDiT."""

from ...method.prediction import EDM
from ...method.schedule import constant
from ...method.sparsity import Sparsity
from ...networks.maskdit import MaskDiTConfig
from ..clues import Clues
from ..spec import ModelSpec
from .guesses import heads_of, side

MASK_RATIO = 0.5  # of both published pre-trainings, ImageNet 256 and 512
PUBLISHED, STEPS = constant(0.0, 0.0, 1.5, "CFG"), 40  # guidance of the published samples, steps of the script for them


def recognise(clues: Clues) -> ModelSpec | None:
    """Variants that were never published (no mask token, a class token) are not taken."""
    if not clues.have("x_embedder.proj.weight", "pos_embed", "decoder_pos_embed", "mask_token"):
        return None
    if not clues.have("y_embedder.embedding_table.weight", "decoder_layer.linear.weight") or clues.have("cls_token"):
        return None
    width, channels, patch, _ = clues.shape("x_embedder.proj.weight", 4)
    heads, note = heads_of(width, MaskDiTConfig)
    config = MaskDiTConfig(
        input_size=side(clues, patch),
        patch_size=patch,
        in_channels=channels,
        width=width,
        depth=clues.layers("blocks."),
        heads=heads,
        decoder_width=clues.shape("mask_token", 3)[2],
        decoder_depth=clues.layers("decoder_blocks."),
        mlp_ratio=clues.shape("blocks.0.mlp.fc1.weight", 2)[0] / width,
        num_classes=clues.shape("y_embedder.embedding_table.weight", 2)[1],
    )
    latent = "pixels" if channels == 3 else "sd"
    sparsity = Sparsity(mask=MASK_RATIO)
    return ModelSpec("maskdit", config, EDM(), sparsity, latent=latent, schedule=PUBLISHED, steps=STEPS, note=note)
