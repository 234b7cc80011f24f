"""The host's image models as the token route sees them: a few lines each, read off the host's own model code."""

import math
from collections.abc import Mapping
from typing import Any

from torch import nn

from .family import Family, Span, Stage, trained


def after_caption(network: nn.Module, grid: tuple[int, ...], inputs: Mapping[str, Any], length: int) -> Span:
    """Lumina 2, Z-Image: caption and references, then the image, then padding to a multiple."""
    count, multiple = math.prod(grid), getattr(network, "pad_tokens_multiple", None) or 1
    return length - -(-count // multiple) * multiple, count


FLUX_STAGES = (
    Stage("double_blocks", "img", text="txt", output=0, over_text=("txt_",)),
    Stage("single_blocks", "x", joint=True),
)
FLUX_INDEXED = {"pe": (1, 2), "attn_mask": (-2, -1)}
FLUX_SLICES = ("modulation_dims_img", "modulation_dims")

IMAGE_FAMILIES = (
    Family("FLUX.1, FLUX.2", ("Flux",), FLUX_STAGES, indexed=FLUX_INDEXED, slices=FLUX_SLICES, route=trained),
    Family("Chroma", ("Chroma", "ChromaRadiance"), FLUX_STAGES, indexed=FLUX_INDEXED, route=trained),
    Family(
        "SD3",
        ("OpenAISignatureMMDITWrapper",),
        (
            Stage(
                "joint_blocks",
                "x",
                text="context",
                output=1,
                positional=("context", "x"),
                over_text=("context_block",),
                over_image=("x_block.attn2",),
            ),
        ),
        route=trained,
    ),
    Family(
        "AuraFlow",
        ("MMDiT",),
        (
            Stage("double_layers", "x", text="c", output=1, over_text=("attn.w1", "mlpC")),
            Stage("single_layers", "cx", joint=True),
        ),
        route=trained,
    ),
    Family(
        "PixArt", ("PixArtMS",), (Stage("blocks", "x", over_text=("cross_attn.kv",)),), folded=("y",), route=trained
    ),
    Family(
        "Qwen-Image",
        ("QwenImageTransformer2DModel",),
        (
            Stage(
                "transformer_blocks",
                "hidden_states",
                text="encoder_hidden_states",
                output=1,
                over_text=("txt_", "attn.add_", "attn.to_add_out"),
            ),
        ),
        indexed={"image_rotary_emb": (1, 2)},
        slices=("timestep_zero_index",),
    ),
    Family(
        "Lumina 2, Z-Image",
        ("NextDiT", "NextDiTPixelSpace"),
        (Stage("layers", "x"),),
        span=after_caption,
        indexed={"freqs_cis": (1,), "x_mask": (-2, -1)},
        slices=("timestep_zero_index",),
    ),
    Family(
        "HunyuanDiT",
        ("HunYuanDiT",),
        (Stage("blocks", "x", over_text=("attn2.kv_proj",)),),
        indexed={"freq_cis_img": (0,), "skip": (1,)},
    ),
)
