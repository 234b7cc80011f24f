"""Checkpoints of PRX: Photoroom's own layout or diffusers', from a pipeline's folder or from the training code."""

import json
import math
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace

from ...conditions.text import TextSpec
from ...method.prediction import Flow
from ...method.schedule import constant
from ...method.sparsity import Route, Sparsity
from ...networks.prx import PRXConfig
from ..clues import Clues
from ..source import numbers
from ..spec import LATENTS, ModelSpec
from .guesses import notes

PATCHES = {64: ("flux", 16, 2), 32: ("dcae", 32, 1)}  # latent, its channels, and the patch, by values per token
ENCODERS = {2304: "t5gemma-2b", 2048: "qwen3-vl-2b"}
PROMPT_TOKENS = 256
# omega and steps: of the published pipelines, of the distilled models, of samples that the training code draws
PUBLISHED, DISTILLED, TRAINING = (5.0, 28), (1.0, 8), (3.5, 50)
TRAINER = ("denoiser.", "state.model.denoiser.")  # what Photoroom's training code puts in front of keys
RESPONSE = "dose-response"  # felfri/dose-response-c0 to c6: 512 pixels, trained with TREAD
UNKNOWN = "The file records no route, and nobody says that its weights were trained with one"
TRAINED = "It was trained with TREAD; the file does not record where"
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
    """The resolution that a model was trained at stands in its pipeline or its metadata, or in its name alone."""
    first = "img_in.0.weight" if clues.have("img_in.0.weight") else "img_in.weight"
    if not clues.have(first, "txt_in.weight", "time_in.in_layer.weight", "blocks.0.attention.img_qkv_proj.weight"):
        return None
    (inner, pixels), (width, text_width) = clues.shape(first, 2), clues.shape("txt_in.weight", 2)
    latent, channels, patch = PATCHES.get(pixels, ("pixels", 3, math.isqrt(pixels // 3)))
    if channels * patch**2 != pixels:
        return None
    depth, sized = clues.layers("blocks."), clues.have("resolution_embedder.mlp.in_layer.weight")
    settings = {**clues.settings, **_recorded(clues.metadata)}
    config = PRXConfig(
        input_size=_size(clues.name, settings, latent, patch),
        patch_size=patch,
        in_channels=channels,
        width=width,
        depth=depth,
        heads=width // clues.shape("blocks.0.attention.norm_q.weight", 1)[0],
        mlp_ratio=clues.shape("blocks.0.gate_proj.weight", 2)[0] / width,
        text_width=text_width,
        bottleneck=0 if first == "img_in.weight" else inner,
        sized=sized,
    )
    training, trained = clues.wrappers[-1:] != () and clues.wrappers[-1] in TRAINER, RESPONSE in clues.name.lower()
    omega, steps = DISTILLED if "distilled" in clues.name else TRAINING if training else PUBLISHED
    sparsity, offer = _route(depth, sized)
    return ModelSpec(
        "prx",
        config,
        _prediction(latent, sized, training, settings),
        sparsity,
        latent=latent,
        text=TextSpec(ENCODERS.get(text_width, ""), text_width, PROMPT_TOKENS, masked=True),
        schedule=constant(0, 0, omega, "CFG"),
        steps=steps,
        license="Apache-2.0" if trained or clues.name.lower().startswith("prx") else "",
        note=notes(TRAINED if trained else UNKNOWN, offer),
    )


def _prediction(latent: str, sized: bool, training: bool, settings: Mapping[str, float]) -> Flow:
    """Published pipelines sample with diffusers' scheduler, the training code evenly down to 0. The noise of PRXPixel,
    which alone is told its size, is twice as strong."""
    levels = 0 if training else 1000
    prediction = Flow(shift=3.0, levels=levels)
    if latent == "pixels":
        prediction = Flow("data", shift=3.0, levels=levels, noise_scale=2.0 if sized else 1.0, floor=0.05)
    return replace(prediction, **{key: settings[key] for key in ("shift", "noise_scale") if key in settings})


def _route(depth: int, sized: bool) -> tuple[Sparsity, str]:
    """A route to try, and where it comes from."""
    if depth <= 6:
        return Sparsity(), ""
    route = Route(2, depth - 2 if sized else depth - 4)
    origin = "Photoroom's report of a day's training" if sized else "Photoroom's TREAD configuration"
    return Sparsity((route,)), f"Layers {route.start} to {route.end}, half the tokens, are assumed after {origin}"


def _size(name: str, settings: Mapping[str, float], latent: str, patch: int) -> int:
    """Side of the network's input."""
    size, rest = divmod(int(settings.get("default_sample_size", 0)), LATENTS[latent])
    if size and not rest and size % patch == 0:
        return size
    named = re.search(r"(?<!\d)(256|512|1024)(?!\d)", name)
    usual = 1024 if latent == "pixels" and RESPONSE not in name.lower() else 512
    return (int(named[1]) if named else usual) // LATENTS[latent]


def _recorded(metadata: Mapping[str, str]) -> dict[str, float]:
    """What the single file of PRXPixel in fp8 keeps of its pipeline."""
    settings = {}
    for key in ("prxpixel_scheduler_config", "prxpixel_model_info"):
        with suppress(ValueError, RecursionError):
            settings |= numbers(json.loads(metadata.get(key, "{}")))
    return settings
