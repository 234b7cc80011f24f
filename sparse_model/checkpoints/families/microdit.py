"""Checkpoints of SonyResearch/micro_diffusion."""

from ...conditions.text import TextSpec
from ...files import FileError
from ...method.prediction import EDM
from ...method.schedule import constant
from ...method.sparsity import Sparsity
from ...networks.microdit import MicroDiTConfig
from ..clues import Clues
from ..spec import ModelSpec
from .guesses import DROPPED_UNPREDICTED, guessed, notes, side

MASK_RATIO = 0.75  # of the published pre-trainings, at 256 and 512 pixels; all end with some unmasked training
PUBLISHED, STEPS = constant(0.0, 0.0, 5.0, "CFG"), 30
TOKENS = 77  # of a prompt, padding included
LATENTS = {4: "sdxl", 16: "kl-f8-d16"}  # by their channels
HEAD_WIDTHS = {1024: 64, 512: 32}  # of the authors' two sizes, by width


def recognise(clues: Clues) -> ModelSpec | None:
    """FileError for latents of an autoencoder that no published model has."""
    if not clues.have("pos_embed", "mask_token", "y_embedder.y_proj.fc1.weight", "patch_mixer.0.norm1.weight"):
        return None
    width, channels, patch, _ = clues.shape("x_embedder.proj.weight", 4)
    if channels not in LATENTS:
        raise FileError(
            f"a MicroDiT for latents of {channels} channels, whose scale is not known here; use one of 4 channels "
            "(dit_4_channel_\u2026) or of 16."
        )
    head_width = HEAD_WIDTHS.get(width, 64)
    guess = "" if width in HEAD_WIDTHS else guessed(width // head_width, head_width)
    layers = [f"{stack}.{i}" for stack in ("patch_mixer", "blocks") for i in range(clues.layers(f"{stack}."))]
    experts = tuple(clues.shapes.get(f"{layer}.mlp.gate.weight", (0,))[0] for layer in layers)
    config = MicroDiTConfig(
        width=width,
        depth=clues.layers("blocks."),
        mixer_width=clues.shape("patch_mixer.0.norm1.weight", 1)[0],
        mixer_depth=clues.layers("patch_mixer."),
        attention=tuple(clues.shape(f"{layer}.attn.proj.weight", 2)[1] for layer in layers),
        hidden=tuple(
            clues.shape(f"{layer}.mlp.w1", 3)[2] if count else clues.shape(f"{layer}.mlp.w1.weight", 2)[0]
            for layer, count in zip(layers, experts, strict=True)
        ),
        experts=experts,
        input_size=side(clues, patch),
        patch_size=patch,
        in_channels=channels,
        text_width=clues.shape("y_embedder.y_proj.fc1.weight", 2)[1],
        text_hidden=clues.shape("y_emb_preprocess.mlp.w1.weight", 2)[0],
        head_width=head_width,
    )
    return ModelSpec(
        "microdit",
        config,
        EDM(sigma_data=0.9),
        Sparsity(mask=MASK_RATIO),
        latent=LATENTS[channels],
        text=TextSpec("clip-h", config.text_width, TOKENS, null="zeros"),
        schedule=PUBLISHED,
        steps=STEPS,
        note=notes(DROPPED_UNPREDICTED, guess),
    )
