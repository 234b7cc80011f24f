"""Which plans a model can be sampled with. Everything here is found out before sampling starts."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from ....sparse_model.method.guidance import RANDOM, RULES
from ....sparse_model.method.schedule import Schedule
from ....sparse_model.method.token_mask import TokenMask
from ....sparse_model.method.tokens import subsets
from ..adapters import adapter_of
from ..own.decoder import AbsentVAE
from ..own.model import spec_of


def check_plan(model: Any, schedule: Schedule) -> None:
    """ValueError if a model cannot be sampled under a schedule."""
    if schedule.sparse:
        check_route(model, "This model", schedule)
    spec = spec_of(model)
    if RANDOM in RULES[schedule.rule].conditions and (spec is None or spec.text is not None):
        raise ValueError(f"The rule {schedule.rule} draws random class labels, so it needs a class-conditional model.")


def check_route(model: Any, name: str, schedule: Schedule) -> None:
    """ValueError unless a model, called `name` in it, has a route, room for it, and rates that it can be scaled to."""
    adapter = adapter_of(model)
    if not adapter.sparsity:
        raise ValueError(
            f"{name} has no token route, so nothing can be dropped: put Token Route in front of this node, load a "
            "checkpoint that records its route with Sparse Model Loader, or use a schedule whose gammas are 0."
        )
    list(adapter.sparsity.stretches(adapter.depth))
    adapter.sparsity.check_rates(schedule.gamma_strong.high, schedule.gamma_weak.high)


def mask_over(model: Any, schedule: Schedule, mask: Tensor | None, shape: Sequence[int]) -> TokenMask | None:
    """A MASK [B, H, W] over the latent [B, C, ...] that is about to be sampled. Says where rates give way to it;
    ValueError if it leaves the branches of SG nothing to differ in."""
    if mask is None or not schedule.sparse:
        return None
    if mask.ndim < 2 or not mask.numel():
        raise ValueError(f"The mask is empty ({list(mask.shape)}): connect a mask with pixels, or none.")
    adapter, placed = adapter_of(model), TokenMask(mask, shape[2:])
    tokens, stay = adapter.tokens(tuple(shape)), adapter.staying(placed, tuple(shape))
    plain = replace(subsets(), factors=adapter.sparsity.factors(adapter.depth))
    routes = range(max(len(plain.factors), 1))

    def kept(gamma: float) -> list[int]:
        return [plain.count(tokens, gamma, route) for route in routes]

    pairs = [(kept(strong), kept(weak)) for strong, weak in schedule.rates()]
    if RULES[schedule.rule].contrasts_sparsity and all(
        max(stay.count, strong) == max(stay.count, weak) for pair in pairs for strong, weak in zip(*pair, strict=True)
    ):
        raise ValueError(
            f"The mask keeps {stay.count} of {tokens} tokens, so the strong and the weak branch leave out the same "
            "ones and there is nothing to guide with: use a smaller mask, or a lower gamma_strong."
        )
    fewest = min(count for pair in pairs for counts in pair for count in counts)
    if stay.count > fewest:
        logging.info(
            "Sparse Guidance: the mask keeps %d of %d tokens where the schedule would keep %d; the rate gives way.",
            stay.count,
            tokens,
            fewest,
        )
    return placed


def check_weak_model(model: Any, weak_model: Any | None, rule: str) -> None:
    """ValueError unless a weak model is there exactly when the rule wants one, and predicts the same quantity."""
    if not RULES[rule].auxiliary:
        if weak_model is not None:
            raise ValueError(
                f"The rule {rule} guides with the model itself and takes no weak model; disconnect it or "
                "choose AG + SG (the preset SG_FID)."
            )
        return
    if weak_model is None:
        raise ValueError(
            f"The rule {rule} guides with a second, weaker model: connect an earlier checkpoint of the same training "
            "as weak_model (Sparse Guider, Sparse KSampler), or choose another rule or preset, such as SG or SG_FLOPS."
        )
    if weak_model.model is model.model:
        raise ValueError(
            "The weak model is the same loaded checkpoint as the model; connect an earlier checkpoint, or choose "
            "another rule or preset, such as SG or SG_FLOPS, which need no second model."
        )
    main, weak = spec_of(model), spec_of(weak_model)
    if main is None or weak is None:
        if type(model.model) is not type(weak_model.model):
            raise ValueError(
                f"The weak model ({type(weak_model.model).__name__}) is of another architecture than the model "
                f"({type(model.model).__name__}); connect an earlier checkpoint of the same training."
            )
        return
    if what := main.unlike(weak):
        raise ValueError(
            f"The weak model does not fit the model: {what}; connect an earlier checkpoint of the same training, or a "
            "smaller model of the same pictures."
        )


def check_vae(model: Any, vae: Any) -> None:
    """ValueError unless a VAE decodes latents of as many channels as a model of this pack makes."""
    if isinstance(vae, AbsentVAE):
        vae.refuse()
    spec = spec_of(model)
    made, decoded = getattr(spec and spec.config, "in_channels", None), getattr(vae, "latent_channels", None)
    if made is None or decoded is None or made == decoded:
        return
    fits = "the loader's own vae" if spec.latent == "pixels" else f"the VAE of its latents ({spec.latent})"
    raise ValueError(
        f"The VAE decodes latents of {decoded} channels, but this model makes {made}: connect {fits} instead."
    )
