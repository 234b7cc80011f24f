"""Checkpoints of Anima-Lab/MaskDiT."""

from ...method.prediction import EDM
from ...method.schedule import constant
from ...method.sparsity import Sparsity
from ...networks.maskdit import MaskDiTConfig
from ..clues import Clues
from ..spec import ModelSpec

MASK_RATIO = 0.5  # of both published pre-trainings, ImageNet 256 and 512
PUBLISHED, STEPS = constant(0.0, 0.0, 1.5, "CFG"), 40  # guidance of the published samples, steps of the script for them
HEADS = {width: heads for width, _, heads in MaskDiTConfig.SIZES.values()}


def recognise(clues: Clues) -> ModelSpec | None:
    """Variants that were never published (no mask token, a class token) are not taken."""
    shapes = clues.shapes
    if not clues.have("x_embedder.proj.weight", "pos_embed", "decoder_pos_embed", "mask_token"):
        return None
    if not clues.have("y_embedder.embedding_table.weight") or "cls_token" in shapes:
        return None
    width, channels, patch, _ = shapes["x_embedder.proj.weight"]
    config = MaskDiTConfig(
        input_size=round(shapes["pos_embed"][1] ** 0.5) * patch,
        patch_size=patch,
        in_channels=channels,
        width=width,
        depth=clues.layers("blocks."),
        heads=HEADS.get(width, max(width // 64, 1)),
        decoder_width=shapes["mask_token"][2],
        decoder_depth=clues.layers("decoder_blocks."),
        mlp_ratio=shapes["blocks.0.mlp.fc1.weight"][0] / width,
        num_classes=shapes["y_embedder.embedding_table.weight"][1],
    )
    latent = "pixels" if channels == 3 else "sd"
    sparsity = Sparsity(mask=MASK_RATIO)
    return ModelSpec("maskdit", config, EDM(), sparsity, latent=latent, schedule=PUBLISHED, steps=STEPS)
