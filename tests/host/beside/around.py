"""What people meet around sampling: sizes, interruption, names of files."""

import math
from collections.abc import Callable
from typing import Any
from unittest import mock

import comfy.samplers
import torch
from probing import message
from setting import own, part, sampled, warnings


def sizes() -> dict[str, list[str]]:
    """What is said about a latent of 256 tokens, about one of the 16 that the model was trained at, and about those of
    other models."""
    patcher, _, positive, negative = own()
    found = {}
    for side in (64, 16):
        with warnings() as said:
            sampled(patcher, (patcher, torch.zeros(1, 3, side, side), positive, negative), steps=1)
        found[str(side)] = [text for text in said if "tokens" in text]
    for name, shape in {"of a video": (1, 3, 5, 64, 64), "of 4 channels": (1, 4, 64, 64)}.items():
        parts = patcher, torch.zeros(shape), positive, negative
        with warnings() as said:
            error = message(lambda parts=parts: sampled(patcher, parts, steps=1))
        found[name] = [error, *(text for text in said if "tokens" in text)]
    return found


def scale() -> str:
    """What Sparse KSampler answers to an omega that is no number, which the bounds of its widget let pass."""
    execute = part("nodes.sampler").SparseKSampler.execute
    return message(lambda: execute(None, [], {}, 0, 1, "HPSv3", math.nan, "euler", "simple", 1.0))


def interrupted() -> list[str]:
    """What runs of a network after somebody has asked to stop in its first block."""
    management = comfy.model_management
    model = own()
    patcher, ran = model[0], []
    for name, module in patcher.model.diffusion_model.named_modules():
        if name.startswith("blocks.") and name.count(".") == 1:
            module.register_forward_pre_hook(lambda *_, name=name: ran.append(name))
            module.register_forward_hook(lambda *_: management.interrupt_current_processing(True))
    try:
        sampled(patcher, model, steps=1)
    except management.InterruptProcessingException:
        return ran
    finally:
        management.interrupt_current_processing(False)
    return [*ran, "the end"]


def windows() -> dict[str, Any]:
    """Names of checkpoints as Windows spells them."""
    loading = part("nodes.host.own.loading")
    with mock.patch.object(loading.os, "sep", "\\"):
        names = loading.checkpoint_names(["PRX\\model.safetensors", "other.safetensors"])
    return {
        "listed": names,
        "found": [loading.listed_name(name, names) for name in ("PRX\\model.safetensors", *names)],
        "not there": message(lambda: loading.listed_name("else.safetensors", names)),
    }


CASES: dict[str, Callable[[], Any]] = {
    "sizes": sizes,
    "scale": scale,
    "interrupted": interrupted,
    "Windows": windows,
}
