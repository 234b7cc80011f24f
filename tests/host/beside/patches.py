"""What another node does inside routed blocks, and masks that go with some tokens."""

import inspect
from collections.abc import Callable
from typing import Any
from unittest import mock

import comfy.samplers
import torch
from cases import Case
from hidden_tokens import Reference
from probing import SEED, SIGMA, error, message, predictions
from setting import Route, constant, first_evaluation, guided, host, routed, sg, subsets
from torch import Tensor
from zoo import ZOO, build, conditions


class Film:
    """A patch with data of its own for every token, as LLLite is one: it is added to the queries."""

    def __init__(self, tokens: int, width: int):
        self.data = torch.randn(1, tokens, width, generator=torch.Generator().manual_seed(8))

    def prepare(self, args: dict) -> dict:
        args["transformer_options"]["model_patch_data"][self] = self.data
        return args

    def __call__(
        self, q: Tensor, k: Tensor, v: Tensor, pe: Any = None, attn_mask: Any = None, extra_options: Any = None
    ):
        data = extra_options["model_patch_data"][self]
        flat = q.flatten(1, -2)
        if data.shape[1] != flat.shape[1]:
            raise ValueError(f"{flat.shape[1]} tokens, control has {data.shape[1]}")
        return {"q": (flat + data).view_as(q), "k": k, "v": v, "pe": pe, "attn_mask": attn_mask}


def kept_tokens(patcher: Any, branch: int, tokens: int, gamma: float) -> Tensor:
    run = first_evaluation(patcher.get_model_object("model_sampling"), SIGMA)
    return subsets(SEED, run, "exact").draw(branch, 2, tokens, gamma)


def per_token() -> dict[str, Any] | None:
    """Data per token, against the reference in which every token is there; None where the host knows no such data."""
    if not hasattr(comfy.supported_models, "Anima"):
        return None
    animal = ZOO["Anima"]
    patcher, x, positive, _ = host("Anima")
    film, short = Film(20, 32), Film(7, 32)
    patcher.set_model_attn1_patch(film)
    patcher.set_model_post_input_patch(film.prepare)
    found = sg(routed(patcher), x, positive)
    expected = []
    for branch, gamma in ((0, 0.25), (1, 0.75)):
        kept = kept_tokens(patcher, branch, 20, gamma)
        layers = Route(1, -2).layers(5)
        with Reference(patcher.model.diffusion_model, Case("Anima"), animal, layers, kept).hiding():
            expected.append(predictions(patcher, positive, None, x, 1.0)[0])
    other = build(animal)
    other.set_model_post_input_patch(short.prepare)
    return {
        "error": max(error(a, b) for a, b in zip(found, expected, strict=True)),
        "unknown": message(lambda: sg(routed(other), x, positive)),
    }


def grid_reader() -> str | None:
    """A patch that goes by the frames of the grid; None for a host whose Wan has no such patches."""
    if "attn2_patch" not in inspect.getsource(comfy.ldm.wan.model):
        return None
    patcher, x, positive, _ = host("Wan 2.1")

    def by_grid(args: dict) -> Tensor:
        frames, *_ = args["transformer_options"]["grid_sizes"]
        return args["x"] * frames

    patcher.set_model_attn2_patch(by_grid)
    predictions(patcher, positive, None, x, 1.0)
    predictions(guided(routed(patcher), constant(0.0, 0.0, 2.0, "CFG + SG")), positive, positive, x, 2.0)
    return message(lambda: sg(routed(patcher), x, positive))


def failing_patch() -> str | None:
    """A patch of a block's attention with data of its own that nobody can cut."""
    if not hasattr(comfy.supported_models, "Anima"):
        return None
    patcher, x, positive, _ = host("Anima")
    weights = torch.ones(1, 20, 1)

    def regional(q: Tensor, k: Tensor, v: Tensor, **rest: Any) -> dict:
        return {"q": (q.flatten(1, -2) * weights).view_as(q), "k": k, "v": v, "pe": rest["pe"]}

    patcher.set_model_attn1_patch(regional)
    return message(lambda: sg(routed(patcher), x, positive))


def guide_frames() -> float | None:
    """LTX with a guide frame at 30 %, against the reference with the mask written out; None for a host without."""
    from comfy.ldm.lightricks import model as ltx

    if not hasattr(ltx, "GuideAttentionMask"):
        return None
    animal = ZOO["LTX-Video"]
    guides = torch.zeros(1, 3, 12, 2) + torch.arange(12.0)[:, None]
    entries = [{"pre_filter_count": 12, "strength": 0.3, "pixel_mask": None, "latent_shape": (1, 3, 4)}]
    extra = {"keyframe_idxs": guides, "concat_mask": torch.ones(1, 1, 3, 3, 4), "guide_attention_entries": entries}
    patcher, x, positive, _ = host("LTX-Video", **extra)
    network, found, expected = patcher.model.diffusion_model, sg(routed(patcher), x, positive), []
    parts = network._build_guide_self_attention_mask

    def dense(*args: Any) -> Tensor:
        mask = parts(*args)
        full = mask.noisy_mask.expand(-1, -1, mask.noisy_mask.shape[-1], -1).clone()
        full[:, :, mask.guide_start : mask.guide_start + mask.tracked_count] = mask.tracked_mask
        return full

    plain = build(animal)
    unmasked = sg(routed(plain), x, conditions(animal, 1, **{**extra, "guide_attention_entries": None}))
    assert error(found[1], unmasked[1]) > 1e-4, "the mask changes nothing"
    with mock.patch.object(network, "_build_guide_self_attention_mask", dense):
        for branch, gamma in ((0, 0.25), (1, 0.75)):
            kept = kept_tokens(patcher, branch, 24, gamma)
            case = Case("LTX-Video", size=24, extra=extra)
            with Reference(network, case, animal, Route(1, -2).layers(5), kept).hiding():
                expected.append(predictions(patcher, positive, None, x, 1.0)[0])
    return max(error(a, b) for a, b in zip(found, expected, strict=True))


def attention_by_frames() -> str | None:
    """Attention in the place of the host's that goes by frames; None for a host that lets nobody replace it."""
    if "optimized_attention_override" not in inspect.getsource(comfy.ldm.modules.attention):
        return None
    patcher, x, positive, _ = host("Wan 2.1")
    options = patcher.model_options["transformer_options"]

    def by_frames(
        attention: Callable, q: Tensor, k: Tensor, v: Tensor, heads: int, *args: Any, **kwargs: Any
    ) -> Tensor:
        if q.shape[1] == k.shape[1]:
            q.unflatten(1, (3, 12))
        return attention(q, k, v, heads, *args, **kwargs)

    options["optimized_attention_override"] = by_frames
    predictions(patcher, positive, None, x, 1.0)
    return message(lambda: sg(routed(patcher), x, positive))


CASES: dict[str, Callable[[], Any]] = {
    "per token": per_token,
    "grid": grid_reader,
    "failing patch": failing_patch,
    "guide frames": guide_frames,
    "attention by frames": attention_by_frames,
}
