"""What a guided run cost, said once when it is over: in the log, and to the editor, which writes it under the node."""

import importlib
import logging
import time
from functools import partial
from typing import Any

from comfy_execution.utils import get_executing_context

from ..adapters import adapter_of
from ..cost import share_of_unguided
from .run import Run

EVENT = "sparse_guidance.cost"
UNTOLD = "sparse_guidance_untold"


def untold(guider: Any) -> None:
    """Keeps quiet about a guider of one's own that only measures: its node says what that took."""
    setattr(guider, UNTOLD, True)


def tell_cost(guider: Any, run: Run, shape: tuple[int, ...]) -> None:
    """Says what the run of a guider over a latent [B, C, ...] cost, unless it ended before its first step or is
    `untold`."""
    if run.began is None or hasattr(guider, UNTOLD):
        return
    seconds = (time.perf_counter() - run.began) / run.steps
    compared = against_cfg(guider, run, shape)
    text = f"{compared:.0%} of the work of CFG, " if compared else ""
    text += f"{seconds:.2f} s per step, {run.steps} step{'s' if run.steps != 1 else ''}"
    if run.evaluations != run.steps:
        text += f", {run.evaluations} evaluations"
    if left_out := run.left_out.total():
        text += f", {left_out} left out by EasyCache"
    logging.info("Sparse Guidance: %s.", text)
    running = get_executing_context()
    if running is None:
        return
    server = importlib.import_module("server").PromptServer.instance
    if server.client_id is not None:  # None is every editor that is open
        told = {"node": running.node_id, "prompt_id": running.prompt_id, "text": text}
        server.send_sync(EVENT, told, server.client_id)


def against_cfg(guider: Any, run: Run, shape: tuple[int, ...]) -> float | None:
    """Multiply-adds of what the run evaluated and EasyCache did not guess, as a share of as many evaluations of CFG;
    None for a network whose cost is not known."""
    model = guider.model_patcher
    try:
        adapter = adapter_of(model)
        positive = guider.original_conds["positive"]
        text = adapter.text_tokens([[each["cross_attn"], each] for each in positive])
        stay = 0 if run.mask is None else adapter.staying(run.mask, shape).count
        weak = guider.auxiliary.patcher if run.rule.auxiliary else None
        count = partial(share_of_unguided, model, shape=shape, text=text, stay=stay, weak_model=weak)
        left_out = run.left_out.total()
        guessed = count(run.left_out) * left_out / run.evaluations if left_out else 0.0
        return (count(run.ran) - guessed) / 2
    except Exception as unknown:  # of other nodes' guiders and networks; a text must not cost a picture
        logging.debug("Sparse Guidance: the cost of this run is not known (%s).", unknown)
        return None
