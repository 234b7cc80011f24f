"""Checkpoints of Nitro-T: amd/Nitro-T-0.6B and 1.2B, and what its training saves."""

import re

from ...conditions.text import TextSpec
from ...method.prediction import Flow
from ...method.schedule import constant
from ...method.sparsity import Sparsity
from ...networks.layers import TransformerConfig
from ...networks.nitro import NitroConfig
from ...networks.nitro_dit import NitroDiTConfig
from ...networks.nitro_mmdit import NitroMMDiTConfig
from ..clues import Clues
from ..spec import LATENTS, ModelSpec
from .guesses import DROPPED_UNPREDICTED, heads_of, notes

MASK_RATIO = 0.5  # of the authors' training configurations, behind the third layer
PUBLISHED, STEPS = constant(0.0, 0.0, 4.0, "CFG"), 20  # of the example on both model cards
SHIFTS = {512: 1.0, 1024: 3.0}  # of the authors' training configurations
TOKENS = 256  # of a prompt, padding included
EXTRA = re.compile(r"projectors\.")  # what the training aligned features with


def recognise_dit(clues: Clues) -> ModelSpec | None:
    if not clues.have("text_embedding_norm.weight", "adaln_single.linear.weight", "caption_projection.linear_1.weight"):
        return None
    width, channels, patch, _ = clues.shape("pos_embed.proj.weight", 4)
    if clues.shape("proj_out.weight", 2)[0] != channels * patch**2:
        return None
    heads, guess = heads_of(width, TransformerConfig)
    config = NitroDiTConfig(
        input_size=_pixels(clues, 512) // LATENTS["dcae"],
        patch_size=patch,
        in_channels=channels,
        width=width,
        depth=clues.layers("transformer_blocks."),
        heads=heads,
        hidden=clues.shape("transformer_blocks.0.ff.net.0.proj.weight", 2)[0],
        text_width=clues.shape("caption_projection.linear_1.weight", 2)[1],
    )
    return _spec("nitro-dit", config, clues, masked=True, guess=guess)


def recognise_mmdit(clues: Clues) -> ModelSpec | None:
    if not clues.have("text_embedding_norm.weight", "context_embedder.weight", "norm_out.linear.weight"):
        return None
    if not clues.have("transformer_blocks.0.attn.add_q_proj.weight", "transformer_blocks.0.attn.norm_q.weight"):
        return None
    width, channels, patch, _ = clues.shape("pos_embed.proj.weight", 4)
    depth = clues.layers("transformer_blocks.")
    config = NitroMMDiTConfig(
        input_size=_pixels(clues, 1024) // LATENTS["dcae"],
        patch_size=patch,
        in_channels=channels,
        width=width,
        depth=depth,
        heads=width // clues.shape("transformer_blocks.0.attn.norm_q.weight", 1)[0],
        hidden=clues.shape("transformer_blocks.0.ff.net.0.proj.weight", 2)[0],
        text_width=clues.shape("context_embedder.weight", 2)[1],
        dual=sum(clues.have(f"transformer_blocks.{layer}.attn2.to_q.weight") for layer in range(depth)),
    )
    return _spec("nitro-mmdit", config, clues, masked=False)


def _spec(architecture: str, config: NitroConfig, clues: Clues, masked: bool, guess: str = "") -> ModelSpec:
    shift = clues.settings.get("shift", SHIFTS[config.input_size * LATENTS["dcae"]])
    return ModelSpec(
        architecture,
        config,
        Flow(shift=shift, levels=1000),
        Sparsity(mask=MASK_RATIO) if config.depth > config.mixer_depth else Sparsity(),
        latent="dcae",
        text=TextSpec("llama3.2-1b", config.text_width, TOKENS, masked=masked),
        schedule=PUBLISHED,
        steps=STEPS,
        license="Apache-2.0" if clues.name.lower().startswith("nitro-t") else "",
        note=notes(DROPPED_UNPREDICTED, guess),
    )


def _pixels(clues: Clues, usual: int) -> int:
    """The resolution that it was trained at stands in its name alone."""
    named = re.search(r"(?<!\d)(512|1024)(?!\d)", clues.name)
    return int(named[1]) if named else usual
