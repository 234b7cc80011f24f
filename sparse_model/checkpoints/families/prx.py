"""Checkpoints of Photoroom/PRX, in its own layout or diffusers', with or without the pipeline around them."""

import math
import re
from collections.abc import Mapping
from dataclasses import replace

from ...conditions.text import TextSpec
from ...method.prediction import Flow
from ...method.schedule import constant
from ...method.sparsity import Route, Sparsity
from ...networks.prx import PRXConfig
from ..clues import Clues
from ..spec import LATENTS, ModelSpec

PATCHES = {64: ("flux", 16, 2), 32: ("dcae", 32, 1)}  # latent, its channels, and the patch, by values per token
ENCODERS = {2304: "t5gemma-2b", 2048: "qwen3-vl-2b"}
PROMPT_TOKENS = 256
STEPS, CFG = 28, 5.0  # of the published pipelines
NOTE = (
    "The file records no route, so that of Photoroom's TREAD configuration is assumed: from layer 2 to the fourth "
    "last, half the tokens"
)
PHOTOROOM = (  # its keys, and what diffusers calls them
    (r"\.(img_qkv_proj|txt_kv_proj)\.", r".attention.\1."),
    (r"\.qk_norm\.query_norm\.(scale|weight)$", ".attention.norm_q.weight"),
    (r"\.qk_norm\.key_norm\.(scale|weight)$", ".attention.norm_k.weight"),
    (r"(\d)\.k_norm\.(scale|weight)$", r"\1.attention.norm_added_k.weight"),
    (r"\.attn_out\.", ".attention.to_out.0."),
)


def rename(key: str) -> str:
    """The key of a weight in diffusers' layout, for one in either layout."""
    for theirs, ours in PHOTOROOM:
        if ".attention." not in key:
            key = re.sub(theirs, ours, key)
    return key


def recognise(clues: Clues) -> ModelSpec | None:
    """The resolution that a model was trained at stands in its pipeline, or in its name alone."""
    shapes = clues.shapes
    bottleneck = shapes.get("img_in.0.weight", (0,))[0]
    first = shapes.get("img_in.0.weight" if bottleneck else "img_in.weight")
    if first is None:
        return None
    if not clues.have("txt_in.weight", "time_in.in_layer.weight", "blocks.0.attention.img_qkv_proj.weight"):
        return None
    pixels, (width, text_width) = first[1], shapes["txt_in.weight"]
    latent, channels, patch = PATCHES.get(pixels, ("pixels", 3, math.isqrt(pixels // 3)))
    if channels * patch**2 != pixels:
        return None
    depth, sized = clues.layers("blocks."), clues.have("resolution_embedder.mlp.in_layer.weight")
    config = PRXConfig(
        input_size=_size(clues, latent, patch),
        patch_size=patch,
        in_channels=channels,
        width=width,
        depth=depth,
        heads=width // shapes["blocks.0.attention.norm_q.weight"][0],
        mlp_ratio=shapes["blocks.0.gate_proj.weight"][0] / width,
        text_width=text_width,
        bottleneck=bottleneck,
        sized=sized,
    )
    if latent == "pixels":  # the noise of PRXPixel, which is told its size, is twice as strong
        prediction = Flow("data", shift=3.0, levels=1000, noise_scale=2.0 if sized else 1.0, floor=0.05)
    else:
        prediction = Flow(shift=3.0, levels=1000)
    distilled = "distilled" in clues.name
    return ModelSpec(
        "prx",
        config,
        _scheduled(prediction, clues.settings),
        Sparsity((Route(2, depth - 4),)) if depth > 6 else Sparsity(),
        latent=latent,
        text=TextSpec(ENCODERS.get(text_width, ""), text_width, PROMPT_TOKENS, masked=True),
        schedule=constant(0, 0, 1.0 if distilled else CFG, "CFG"),
        steps=8 if distilled else STEPS,
        license="Apache-2.0" if clues.name.lower().startswith("prx") else "",
        note=NOTE,
    )


def _size(clues: Clues, latent: str, patch: int) -> int:
    """Side of the network's input."""
    size, rest = divmod(int(clues.settings.get("default_sample_size", 0)), LATENTS[latent])
    if size > 0 and not rest and size % patch == 0:
        return size
    named = re.search(r"(?<!\d)(256|512|1024)(?!\d)", clues.name)
    return (int(named[1]) if named else 1024 if latent == "pixels" else 512) // LATENTS[latent]


def _scheduled(prediction: Flow, settings: Mapping[str, float]) -> Flow:
    """With the shift and the strength of the noise that the pipeline's scheduler states."""
    return replace(prediction, **{key: settings[key] for key in ("shift", "noise_scale") if settings.get(key, 0) > 0})
