"""Checkpoints of SwayStar123/SpeedrunDiT."""

import math
import re
from dataclasses import replace

from ...files import FileError
from ...method.prediction import Flow
from ...method.schedule import PRESETS
from ...method.sparsity import Sparsity
from ...networks.srdit import SRDiTConfig
from ..clues import Clues
from ..spec import ModelSpec

LATENT_CHANNELS = 32  # of REPA-E's INVAE
MASK_RATIO = 0.75  # of the training, whose decoder sees every token
OMEGA, HIGHEST, STEPS = 2.5, 0.85, 250  # of the authors' example: Path-Drop Guidance below noise level 0.85
SHIFT_BASE = 4096  # numbers in a latent that shift time by nothing
NOTE = "Three channels of its latents hold a class token, which no VAE encodes: start from Empty Sparse Latent"
EXTRA = re.compile(r"(projectors|feat_rope)\.")  # what training aligned features with, and tables of positions


def recognise(clues: Clues) -> ModelSpec | None:
    """FileError for latents of another autoencoder than the published one."""
    if not clues.have("x_embedder.proj.weight", "fusion_proj.weight", "cls_projectors2.weight", "mask_token"):
        return None
    if not clues.have("blocks.0.attn.q_norm.weight", "blocks.1.attn.v1_lambda"):
        return None
    width, channels, patch, _ = clues.shape("x_embedder.proj.weight", 4)
    if channels != LATENT_CHANNELS:
        raise FileError(f"an SR-DiT for latents of {channels} channels; only INVAE's, of {LATENT_CHANNELS}, are known.")
    tokens = clues.shape("pos_embed", 3)[1] - 1
    class_width = clues.shape("cls_projectors2.weight", 2)[1]
    plain = SRDiTConfig()
    config = SRDiTConfig(
        input_size=math.isqrt(tokens) * patch,
        patch_size=patch,
        in_channels=channels + plain.class_channels,
        width=width,
        depth=clues.layers("blocks.") - plain.encoder_depth - plain.decoder_depth,
        heads=width // clues.shape("blocks.0.attn.q_norm.weight", 1)[0],
        mlp_ratio=clues.shape("blocks.0.mlp.fc1.weight", 2)[0] / width,
        num_classes=clues.shape("y_embedder.embedding_table.weight", 2)[0] - 1,
        class_width=class_width,
    )
    shift = math.sqrt(channels * config.input_size**2 / SHIFT_BASE)
    schedule = replace(PRESETS["PDG"].with_scale(OMEGA), start=round(1 - even(HIGHEST, shift), 3))
    return ModelSpec(
        "srdit",
        config,
        Flow(shift=shift),
        Sparsity(mask=MASK_RATIO),
        latent="invae",
        schedule=schedule,
        steps=STEPS,
        note=NOTE,
    )


def even(sigma: float, shift: float) -> float:
    """The time that a shift takes to a noise level."""
    return sigma / (shift - (shift - 1) * sigma)
