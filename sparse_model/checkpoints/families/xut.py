"""Checkpoints of KohakuBlueleaf/HDM: one file of network, autoencoder and sometimes text encoder, or the network alone.

What the trainer saves has `unet.model.*` (diffusers: `model.*`), `vae.*`, `te.*` and the latents' mean and deviation.
"""

import re

from ...conditions.text import TextSpec
from ...method.prediction import Flow
from ...method.schedule import PRESETS
from ...method.sparsity import Route, Sparsity
from ...networks.xut import XUTConfig
from ..clues import Clues
from ..spec import LATENTS, ModelSpec

PREFIX = re.compile(r"^(unet\.)?model\.")
EXTRA = re.compile(r"(vae|te)\.|vae_(mean|std)$|time_emb\.freqs$")  # the table of frequencies is rounded in the file
ENCODERS = {1024: "qwen3-0.6b"}
PROMPT_TOKENS = 256  # in all stages but the last one, which had 512
STEPS = 24
LICENSE = "CC BY-NC-SA 4.0"
NOTE = "The file records no route, so that of HDM's configuration is assumed: the whole U, half the tokens"
LAST_STAGE = (
    f"{NOTE}. The last stage of its training, at 1024 px, was dense; "
    "its authors guide by sparse predictions all the same"
)


def rename(key: str) -> str:
    """The key of a weight in the network, for one in a file around it."""
    return PREFIX.sub("", key)


def recognise(clues: Clues) -> ModelSpec | None:
    """The resolution that a model was trained at stands in its name alone."""
    if not clues.have("in_patch.proj.weight", "ctx_proj.weight", "shared_adaln_xattn.1.weight"):
        return None
    if not clues.have("prev_tread_trns.blocks.0.attn.rope.freqs", "addon_info_embs_proj.0.weight"):
        return None
    width, channels, patch, _ = clues.shape("in_patch.proj.weight", 4)
    before = clues.layers("prev_tread_trns.blocks.")
    named = re.search(r"(?<!\d)(256|512|768|1024)(?!\d)", clues.name)
    pixels = int(named[1]) if named else 1024
    config = XUTConfig(
        input_size=pixels // LATENTS["eq-sdxl"],
        patch_size=patch,
        in_channels=channels,
        width=width,
        heads=clues.shape("prev_tread_trns.blocks.0.attn.rope.freqs", 3)[0],
        hidden=clues.shape("prev_tread_trns.blocks.0.mlp.w3.weight", 2)[1],
        text_width=clues.shape("ctx_proj.weight", 2)[1],
        before=before,
        levels=clues.layers("backbone.enc_blocks."),
        encoder=clues.layers("backbone.enc_blocks.0."),
        decoder=clues.layers("backbone.dec_blocks.0."),
        after=clues.layers("post_tread_trns.blocks."),
    )
    return ModelSpec(
        "xut",
        config,
        Flow(),
        Sparsity((Route(before, before),)),
        latent="eq-sdxl",
        text=TextSpec(ENCODERS.get(config.text_width, ""), config.text_width, PROMPT_TOKENS, padded=False),
        schedule=PRESETS["HDM"],
        steps=STEPS,
        license=LICENSE if clues.name.lower().startswith("hdm") else "",
        note=LAST_STAGE if pixels == 1024 else NOTE,
    )
