"""Checkpoints of SonyResearch/micro_diffusion."""

from ...conditions.text import TextSpec
from ...method.prediction import EDM
from ...method.schedule import constant
from ...method.sparsity import Sparsity
from ...networks.microdit import MicroDiTConfig
from ..clues import Clues
from ..spec import ModelSpec

MASK_RATIO = 0.75  # of the published pre-trainings, at 256 and 512 pixels; all end with some unmasked training
PUBLISHED, STEPS = constant(0.0, 0.0, 5.0, "CFG"), 30
TOKENS = 77  # of a prompt, padding included
NOTE = (
    "Tokens that its mask drops get no prediction: guide it by CFG, or give it a route (convert --route), inside which "
    "they wait"
)


def recognise(clues: Clues) -> ModelSpec | None:
    """Heads show in no shape: the published sizes have heads of 64 channels, the small one 32.

    ValueError for other latents than those of SDXL's VAE, which has 4 channels.
    """
    shapes = clues.shapes
    if not clues.have("pos_embed", "mask_token", "y_embedder.y_proj.fc1.weight", "patch_mixer.0.norm1.weight"):
        return None
    width, channels, patch, _ = shapes["x_embedder.proj.weight"]
    if channels != 4:
        raise ValueError(
            f"a MicroDiT for latents of {channels} channels, whose scale is not known here; use one of 4 channels "
            "(dit_4_channel_…), which works on latents of SDXL's VAE."
        )
    layers = [f"{stack}.{i}" for stack in ("patch_mixer", "blocks") for i in range(clues.layers(f"{stack}."))]
    experts = tuple(shapes.get(f"{layer}.mlp.gate.weight", (0,))[0] for layer in layers)
    config = MicroDiTConfig(
        width=width,
        depth=clues.layers("blocks."),
        mixer_width=shapes["patch_mixer.0.norm1.weight"][0],
        mixer_depth=clues.layers("patch_mixer."),
        attention=tuple(shapes[f"{layer}.attn.proj.weight"][1] for layer in layers),
        hidden=tuple(
            shapes[f"{layer}.mlp.w1"][2] if count else shapes[f"{layer}.mlp.w1.weight"][0]
            for layer, count in zip(layers, experts, strict=True)
        ),
        experts=experts,
        input_size=round(shapes["pos_embed"][1] ** 0.5) * patch,
        patch_size=patch,
        in_channels=channels,
        text_width=shapes["y_embedder.y_proj.fc1.weight"][1],
        text_hidden=shapes["y_emb_preprocess.mlp.w1.weight"][0],
        head_width=32 if width == 512 else 64,
    )
    return ModelSpec(
        "microdit",
        config,
        EDM(sigma_data=0.9),
        Sparsity(mask=MASK_RATIO),
        latent="sdxl",
        text=TextSpec("clip-h", config.text_width, TOKENS, null="zeros"),
        schedule=PUBLISHED,
        steps=STEPS,
        note=NOTE,
    )
