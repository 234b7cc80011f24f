"""The host's video models as the token route sees them: a few lines each, read off the host's own model code."""

import copy
import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from ....sparse_model.method.sparsity import Route, trainers_route
from .family import Family, Span, Stage, last
from .forms import NoRows, PerFrame, RowsInside, Together
from .image_families import FLUX_INDEXED, FLUX_SLICES, FLUX_STAGES
from .layout import Layout
from .rows import pick


def after_reference(network: nn.Module, grid: tuple[int, ...], inputs: Mapping[str, Any], length: int) -> Span:
    """Wan: the tokens of a reference frame stand in front of the video's."""
    reference = inputs.get("reference_latent")
    if network.ref_conv is None or reference is None:
        return 0, math.prod(grid)
    _, height, width = network.patch_size
    return (reference.shape[-2] // height) * (reference.shape[-1] // width), math.prod(grid)


def after_reference_frames(network: nn.Module, grid: tuple[int, ...], inputs: Mapping[str, Any], length: int) -> Span:
    """SCAIL: frames of reference pictures, then the video, then its poses."""
    reference = inputs.get("reference_latent")
    if reference is None:
        return 0, math.prod(grid)
    sides = zip(reference.shape[2:], network.patch_size, strict=True)
    return math.prod(-(-side // patch) for side, patch in sides), math.prod(grid)


def after_guiding_frame(network: nn.Module, grid: tuple[int, ...], inputs: Mapping[str, Any], length: int) -> Span:
    """HunyuanVideo: a reference frame, or the first frame of the video that guides the others, is kept."""
    reference = inputs.get("ref_latent")
    start, count = length - math.prod(grid) if reference is not None else 0, math.prod(grid)
    frame = math.prod(grid[-2:]) if inputs.get("guiding_frame_index") is not None else 0
    return start + frame, count - frame


def before_keyframes(network: nn.Module, grid: tuple[int, ...], inputs: Mapping[str, Any], length: int) -> Span:
    """LTX-Video: guide frames stand at the end of the latent."""
    guides = inputs.get("keyframe_idxs")
    return 0, math.prod(grid) - (0 if guides is None else guides.shape[2])


def guide_mask(mask: Any, layout: Layout) -> Any:
    """LTX-Video: how strongly the video attends to guide frames, dense [B or 1, 1, L, L], or, in new hosts, in two
    parts [1, 1, 1 or guide tokens, L] for the video's queries and for those of the guide frames, which all stay."""
    if isinstance(mask, Tensor):
        return pick(pick(mask, layout.kept, -1), layout.kept, -2)
    kept = copy.copy(mask)
    kept.guide_start = layout.moved(mask.guide_start)
    kept.noisy_mask, kept.tracked_mask = (pick(m, layout.kept, -1) for m in (mask.noisy_mask, mask.tracked_mask))
    return kept


def after_given_frames(network: nn.Module, grid: tuple[int, ...], inputs: Mapping[str, Any], length: int) -> Span:
    """Kandinsky 5: frames that are given, not generated, are kept."""
    given = inputs.get("time_dim_replace")
    start = 0 if given is None else -(-given.shape[2] // network.patch_size[0]) * math.prod(grid[-2:])
    return start, math.prod(grid) - start


def after_first_frame(network: nn.Module, grid: tuple[int, ...], inputs: Mapping[str, Any], length: int) -> Span:
    """Motif-Video: the first frame of image to video is kept; the last channel beside the latent marks it."""
    beside = inputs.get("c_concat")
    start = 0 if beside is None or not beside[:, -1, 0].any() else math.prod(grid[-2:])
    return start, math.prod(grid) - start


def modulated_segments(segments: list[tuple[int, int, Any]], layout: Layout) -> list[tuple[int, int, Any]]:
    """MiniMax-H3: ranges of tokens, and which row of the modulation each takes, one or one for every token."""
    kept = layout.kept[0]

    def rows(start: int, stop: int, row: Any) -> Any:
        if not isinstance(row, Tensor):
            return row
        return row[kept[(kept >= start) & (kept < stop)] - start]

    return [(layout.moved(start), layout.moved(stop), rows(start, stop, row)) for start, stop, row in segments]


def motif_route(depth: int) -> Route:
    """TREAD's advice, over the blocks that encode: the trainer's code cannot route across into the eight that decode,
    and which route it took is not published."""
    return Route(2, depth - 10) if depth > 14 else trainers_route(depth)


MOTIF_CROSS = ("attn.to_k", "attn.to_v")

VIDEO_FAMILIES = (
    Family(
        "Wan",
        ("WanModel", "VaceWanModel", "CameraWanModel", "AnimateWanModel", "WanModel_S2V", "WanDancerModel"),
        (Stage("blocks", "x", over_text=("cross_attn.k", "cross_attn.v")),),
        span=after_reference,
        indexed={"freqs": (1,)},
        stretched={"e": 4},
        route=trainers_route,
    ),
    Family(
        "Wan HuMo",
        ("HumoWanModel",),
        (
            Stage(
                "blocks",
                "x",
                by_place=("audio_cross_attn_wrapper",),
                over_text=("cross_attn.k", "cross_attn.v"),
                uncounted=("audio_",),
            ),
        ),
        indexed={"freqs": (1,)},
        stretched={"e": 4},
        route=trainers_route,
    ),
    Family(
        "SCAIL",
        ("SCAILWanModel", "SCAIL2WanModel"),
        (Stage("blocks", "x", over_text=("cross_attn.k", "cross_attn.v")),),
        span=after_reference_frames,
        indexed={"freqs": (1,)},
        stretched={"e": 4},
    ),
    Family(
        "HunyuanVideo",
        ("HunyuanVideo",),
        FLUX_STAGES,
        span=after_guiding_frame,
        indexed=FLUX_INDEXED,
        slices=FLUX_SLICES,
        text_last=lambda network: getattr(network.double_blocks[0], "flipped_img_txt", False),
    ),
    Family(
        "LTX-Video",
        ("LTXVModel",),
        (Stage("transformer_blocks", "x", over_text=("attn2.to_k", "attn2.to_v")),),
        patch=lambda network: network.patchifier.patch_size,
        span=before_keyframes,
        indexed={"pe": (1,), "timestep": (1,)},
        cut={"self_attention_mask": guide_mask},
    ),
    Family(
        "LTX-2",
        ("LTXAVModel",),
        (
            Stage(
                "transformer_blocks",
                "vx",
                sound="ax",
                output=0,
                form=Together("x", ("vx", "ax")),
                over_text=("attn2.to_k", "attn2.to_v"),
                uncounted=("audio_", "video_to_audio_"),
            ),
        ),
        patch=lambda network: network.patchifier.patch_size,
        span=before_keyframes,
        indexed={"v_pe": (1,), "v_cross_pe": (1,)},
        cut={
            "self_attention_mask": guide_mask,
            "v_timestep": PerFrame.kept,
            "v_cross_scale_shift_timestep": PerFrame.kept,
            "v_cross_gate_timestep": PerFrame.kept,
        },
        route=trainers_route,
    ),
    Family(
        "MiniMax-H3",
        ("MiniMaxH3Model",),
        (Stage("blocks", "x", form=NoRows("x"), modulation=("adaln_proj",)),),
        span=last,
        indexed={"rope_freqs": (1,)},
        common=("t_emb", "mod_segments"),
        cut={"mod_segments": modulated_segments},
        one_row=True,
        route=trainers_route,
    ),
    Family(
        "Cosmos 1",
        ("GeneralDIT",),
        (
            Stage(
                "blocks",
                "x",
                form=RowsInside({"x": 3, "crossattn_emb": 1}, output=3),
                over_text=("blocks.1.block.attn.to_k", "blocks.1.block.attn.to_v"),
            ),
        ),
        patch=lambda network: (network.patch_temporal, network.patch_spatial, network.patch_spatial),
        indexed={"rope_emb_L_1_1_D": (0,)},
    ),
    Family(
        "Cosmos-Predict2, Anima",
        ("MiniTrainDIT", "Anima"),
        (Stage("blocks", "x_B_T_H_W_D", over_text=("cross_attn.k_proj", "cross_attn.v_proj")),),
        patch=lambda network: (network.patch_temporal, network.patch_spatial, network.patch_spatial),
        indexed={"rope_emb_L_1_1_D": (1,), "extra_per_block_pos_emb": (1,)},
        stretched={"emb_B_T_D": 3, "adaln_lora_B_T_3D": 3},
    ),
    Family(
        "Kandinsky 5",
        ("Kandinsky5",),
        (
            Stage(
                "visual_transformer_blocks",
                "visual_embed",
                over_text=("cross_attention.to_key", "cross_attention.to_value"),
            ),
        ),
        span=after_given_frames,
        indexed={"freqs": (1,)},
        route=trainers_route,
    ),
    Family(
        "Mochi",
        ("AsymmDiTJoint",),
        (Stage("blocks", "x", text="y", output=0, over_text=("attn.qkv_y", "attn.proj_y", "mlp_y")),),
        indexed={"rope_cos": (0,), "rope_sin": (0,)},
        text_last=lambda network: True,
    ),
    Family(
        "CogVideoX",
        ("CogVideoXTransformer3DModel",),
        (
            Stage(
                "blocks",
                "hidden_states",
                text="encoder_hidden_states",
                output=0,
                modulation=("norm1.linear", "norm2.linear"),
            ),
        ),
        patch=lambda network: (network.patch_size_t or 1, network.patch_size, network.patch_size),
        indexed={"image_rotary_emb": (0,)},
    ),
    Family(
        "Motif-Video",
        ("MotifVideoTransformer3DModel",),
        (
            Stage(
                "transformer_blocks",
                "hidden_states",
                text="encoder_hidden_states",
                output=0,
                over_text=("attn.add_", "attn.to_add_out", "ff_context"),
                reread=MOTIF_CROSS,
                modulation=("norm",),
            ),
            Stage(
                "single_transformer_blocks",
                "hidden_states",
                text="encoder_hidden_states",
                output=0,
                part=lambda network: slice(0, len(network.single_transformer_blocks) - network.num_decoder_layers),
                over_both=("attn.", "proj_"),
                reread=MOTIF_CROSS,
                modulation=("norm",),
            ),
            Stage(
                "single_transformer_blocks",
                "hidden_states",
                output=0,
                twin="encoder_hidden_states",
                anew=True,
                part=lambda network: slice(len(network.single_transformer_blocks) - network.num_decoder_layers, None),
                modulation=("norm",),
            ),
        ),
        patch=lambda network: (network.config.patch_size_t, network.config.patch_size, network.config.patch_size),
        span=after_first_frame,
        indexed={"image_rotary_emb": (0,), "attention_mask": (-1,)},
        text_last=lambda network: True,
        route=motif_route,
    ),
)
