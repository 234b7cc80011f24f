"""The host's image models as the token route sees them: a few lines each, read off the host's own model code."""

import math
from collections.abc import Mapping
from typing import Any

from torch import nn

from ....sparse_model.method.sparsity import trainers_route
from .family import Family, Span, Stage, last


def after_caption(network: nn.Module, grid: tuple[int, ...], inputs: Mapping[str, Any], length: int) -> Span:
    """Lumina 2, Z-Image: caption and references, then the image, then padding to a multiple."""
    count, multiple = math.prod(grid), getattr(network, "pad_tokens_multiple", None) or 1
    return length - -(-count // multiple) * multiple, count


def before_references(network: nn.Module, grid: tuple[int, ...], inputs: Mapping[str, Any], length: int) -> Span:
    """Krea 2: text, then the image, then reference images."""
    sides = [
        tuple(-(-side // network.patch) for side in latent.shape[-2:]) for latent in inputs.get("ref_latents") or []
    ]
    return length - sum(map(math.prod, sides)) - math.prod(grid), math.prod(grid)


FLUX_STAGES = (
    Stage("double_blocks", "img", text="txt", output=0, over_text=("txt_",)),
    Stage("single_blocks", "x", joint=True),
)
FLUX_INDEXED = {"pe": (1, 2), "attn_mask": (-2, -1)}
FLUX_SLICES = ("modulation_dims_img", "modulation_dims")

IMAGE_FAMILIES = (
    Family(
        "FLUX.1, FLUX.2",
        ("Flux",),
        FLUX_STAGES,
        indexed=FLUX_INDEXED,
        slices=FLUX_SLICES,
        packed=True,
        pooled=lambda network: getattr(network, "vector_in", None) is not None,
        route=trainers_route,
    ),
    Family(
        "Chroma", ("Chroma", "ChromaRadiance"), FLUX_STAGES, indexed=FLUX_INDEXED, packed=True, route=trainers_route
    ),
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
        packed=True,
        pooled=lambda network: True,
        route=trainers_route,
    ),
    Family(
        "AuraFlow",
        ("MMDiT",),
        (
            Stage("double_layers", "x", text="c", output=1, over_text=("attn.w1", "mlpC")),
            Stage("single_layers", "cx", joint=True),
        ),
        packed=True,
        route=trainers_route,
    ),
    Family(
        "PixArt",
        ("PixArtMS",),
        (Stage("blocks", "x", over_text=("cross_attn.kv",)),),
        folded=("y",),
        route=trainers_route,
    ),
    Family(
        "Qwen-Image, Mage-Flow",
        ("QwenImageTransformer2DModel", "MageFlowTransformer2DModel"),
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
        stacked=("temb",),
        packed=True,
    ),
    Family(
        "Lumina 2, Z-Image",
        ("NextDiT", "NextDiTPixelSpace"),
        (Stage("layers", "x"),),
        span=after_caption,
        indexed={"freqs_cis": (1,), "x_mask": (-2, -1)},
        slices=("timestep_zero_index",),
        stacked=("adaln_input",),
        packed=True,
    ),
    Family(
        "HunyuanDiT",
        ("HunYuanDiT",),
        (Stage("blocks", "x", over_text=("attn2.kv_proj",)),),
        indexed={"freq_cis_img": (0,), "skip": (1,)},
    ),
    Family(
        "Krea 2",
        ("SingleStreamDiT",),
        (Stage("blocks", "x"),),
        patch=lambda network: network.patch,
        span=before_references,
        indexed={"freqs": (2,)},
        slices=("timestep_zero_index",),
        stacked=("vec",),
        packed=True,
        route=trainers_route,
    ),
    Family(
        "HiDream-I1",
        ("HiDreamImageTransformer2DModel",),
        (
            Stage(
                "double_stream_blocks",
                "image_tokens",
                text="text_tokens",
                output=0,
                over_text=(
                    "block.attn1.to_q_t",
                    "block.attn1.to_k_t",
                    "block.attn1.to_v_t",
                    "block.attn1.to_out_t",
                    "block.ff_t",
                ),
            ),
            Stage("single_stream_blocks", "image_tokens", joint=True),
        ),
        indexed={"rope": (1,)},
        text_last=lambda network: True,
        packed=True,
        pooled=lambda network: True,
        route=trainers_route,
    ),
    Family(
        "ERNIE-Image",
        ("ErnieImageModel",),
        (Stage("layers", "x", joint=True),),
        indexed={"rotary_pos_emb": (1,)},
        text_last=lambda network: True,
        route=trainers_route,
    ),
    Family(
        "OmniGen 2",
        ("OmniGen2Transformer2DModel",),
        (Stage("layers", "hidden_states", modulation=("norm1.linear",)),),
        span=last,
        indexed={"image_rotary_emb": (1,)},
        packed=True,
    ),
    Family(
        "Boogu-Image",
        ("BooguTransformer2DModel",),
        (
            Stage(
                "double_stream_layers",
                "img_hidden_states",
                text="instruct_hidden_states",
                output=0,
                over_text=("instruct_", "img_instruct_attn.processor.instruct_"),
                over_image=("img_self_attn",),
                modulation=("img_norm", "instruct_norm"),
                over_both=("img_instruct_attn.to_out",),
            ),
            Stage("single_stream_layers", "hidden_states", joint=True, modulation=("norm1.linear",)),
        ),
        span=last,
        indexed={"joint_rotary_emb": (1,), "img_rotary_emb": (1,), "image_rotary_emb": (1,)},
        packed=True,
    ),
    Family(
        "PixelDiT",
        ("PixDiT_T2I", "PidNet"),
        (Stage("patch_blocks", "x", text="y", output=0, over_text=("attn.qkv_y", "attn.proj_y", "mlp_y")),),
        indexed={"pos_img": (0,)},
        common=("pos_txt",),
    ),
    Family(
        "Lens",
        ("LensTransformer2DModel",),
        (
            Stage(
                "transformer_blocks",
                "hidden_states",
                text="encoder_hidden_states",
                output=1,
                over_text=("attn.txt_qkv", "attn.to_add_out", "txt_"),
            ),
        ),
        patch=lambda network: 1,
        indexed={"freqs_cis": (2,), "attention_mask": (-1,)},
        text_last=lambda network: True,
    ),
    Family(
        "Ideogram 4",
        ("Ideogram4Transformer2DModel",),
        (Stage("layers", "x"),),
        patch=lambda network: 1,
        span=last,
        indexed={"freqs_cis": (1,), "attn_mask": (-2, -1)},
        packed=True,
    ),
    Family(
        "JoyImage",
        ("JoyImageTransformer3DModel",),
        (
            Stage(
                "double_blocks",
                "hidden_states",
                text="encoder_hidden_states",
                output=0,
                over_text=("attn.txt_", "txt_"),
            ),
        ),
        indexed={"image_rotary_emb": (1,)},
        text_last=lambda network: True,
        packed=True,
    ),
)
