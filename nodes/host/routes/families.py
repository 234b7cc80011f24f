"""The host's transformers as the token route sees them: a few lines each, read off the host's own model code.

A stage is a list of blocks that run one after another. What a family has to say about it: which argument of a block
holds the image tokens, where text tokens stand, which other arguments are indexed by token, and which tokens of the
sequence may be dropped. Everything else is in routing.py.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from ....sparse_model.method.sparsity import Route
from ....sparse_model.method.sparsity import trainers_route as trained

Span = tuple[int, int]
"""Where the droppable tokens of a sequence stand: their start and their count."""


@dataclass(frozen=True)
class Stage:
    """One list of blocks. `output` is the place of the image tokens in what a block returns, None if it is all.

    `text` names the argument with the text tokens where they are a stream of their own; `joint` says that they stand in
    the sequence itself. `positional` names arguments that the block's own signature does not. For the cost: `over_text`
    are beginnings of the names of weights that run over text tokens, `over_image` those of a further self-attention
    among image tokens; weights of modulation have "mod" in their names.
    """

    path: str
    tokens: str
    text: str | None = None
    output: int | None = None
    joint: bool = False
    positional: tuple[str, ...] = ()
    over_text: tuple[str, ...] = ()
    over_image: tuple[str, ...] = ()


def whole(network: nn.Module, grid: tuple[int, ...], inputs: Mapping[str, Any], length: int) -> Span:
    """The image comes first; what follows it (reference images) is never dropped."""
    return 0, math.prod(grid)


@dataclass(frozen=True)
class Family:
    """How the transformers of one family take their tokens.

    `networks`   names of the host's classes.
    `patch`      network -> size of a patch over the last dimensions of a latent.
    `span`       (network, patches along each dimension, inputs of the call, length of the sequence without joint text)
                 -> Span.
    `indexed`    argument -> the dimensions that may be indexed by token; a dimension of size 1 is left alone. Where it
                 is dimension 0 there are no rows, and the family runs one row per call.
    `stretched`  argument -> its number of dimensions where it is [B, n, ...], one for each stretch of tokens (a frame).
    `slices`     arguments that count tokens: a position, or ranges of positions.
    `folded`     arguments whose rows are folded into their second dimension.
    `refused`    argument -> what it means, where it cannot be cut down to kept tokens.
    `text_last`  network -> whether text follows the image in joint sequences.
    `route`      what to route where nobody says otherwise.
    """

    name: str
    networks: tuple[str, ...]
    stages: tuple[Stage, ...]
    patch: Callable[[nn.Module], Any] = lambda network: network.patch_size
    span: Callable[[nn.Module, tuple[int, ...], Mapping[str, Any], int], Span] = whole
    indexed: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    stretched: Mapping[str, int] = field(default_factory=dict)
    slices: tuple[str, ...] = ()
    folded: tuple[str, ...] = ()
    refused: Mapping[str, str] = field(default_factory=dict)
    text_last: Callable[[nn.Module], bool] = lambda network: False
    route: Callable[[int], Route] = lambda depth: Route(depth // 3, depth // 3 + 1)

    @property
    def rowwise(self) -> bool:
        return any(0 in dims for dims in self.indexed.values())

    def grid(self, network: nn.Module, size: tuple[int, ...]) -> tuple[int, ...]:
        """Patches along each dimension of a latent [B, C, *size]; latents are padded to whole patches."""
        patch = self.patch(network)
        sides = (patch,) * 2 if isinstance(patch, int) else tuple(patch)
        sides = (1,) * (len(size) - len(sides)) + sides
        return tuple(-(-length // side) for length, side in zip(size, sides[-len(size) :], strict=True))


def after_reference(network: nn.Module, grid: tuple[int, ...], inputs: Mapping[str, Any], length: int) -> Span:
    """Wan: the tokens of a reference frame stand in front of the video's."""
    reference = inputs.get("reference_latent")
    if network.ref_conv is None or reference is None:
        return 0, math.prod(grid)
    _, height, width = network.patch_size
    return (reference.shape[-2] // height) * (reference.shape[-1] // width), math.prod(grid)


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

FAMILIES = (
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
        "Wan",
        ("WanModel", "VaceWanModel", "CameraWanModel"),
        (Stage("blocks", "x", over_text=("cross_attn.k", "cross_attn.v")),),
        span=after_reference,
        indexed={"freqs": (1,)},
        stretched={"e": 4},
        route=trained,
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
        refused={"self_attention_mask": "guide frames of less than full attention strength"},
    ),
    Family(
        "HunyuanDiT",
        ("HunYuanDiT",),
        (Stage("blocks", "x", over_text=("attn2.kv_proj",)),),
        indexed={"freq_cis_img": (0,), "skip": (1,)},
    ),
    Family(
        "Cosmos-Predict2, Anima",
        ("MiniTrainDIT", "Anima"),
        (Stage("blocks", "x_B_T_H_W_D", over_text=("cross_attn.k_proj", "cross_attn.v_proj")),),
        patch=lambda network: (network.patch_temporal, network.patch_spatial, network.patch_spatial),
        indexed={"rope_emb_L_1_1_D": (1,), "extra_per_block_pos_emb": (1,)},
        stretched={"emb_B_T_D": 3, "adaln_lora_B_T_3D": 3},
    ),
)


def family_of(network: nn.Module) -> Family:
    """The family of a host's network; ValueError that names the families that work."""
    name = type(network).__name__
    for family in FAMILIES:
        if name in family.networks:
            return family
    known = ", ".join(family.name for family in FAMILIES)
    kind = "a U-Net" if "unet" in name.lower() else "an architecture that this node does not know"
    raise ValueError(f"Token Route cannot route {name}, {kind}; it works with {known}, and models of this pack.")


def numbered_blocks(network: nn.Module, family: Family) -> list[tuple[str, Stage, nn.Module]]:
    """(path below the network, stage, block) of every block, in the order and numbering of the trainers."""
    return [
        (f"{stage.path}.{number}", stage, block)
        for stage in family.stages
        for number, block in enumerate(getattr(network, stage.path))
    ]
