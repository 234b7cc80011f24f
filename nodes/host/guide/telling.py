"""What a guided run cost, said once when it is over: in the log, and to the editor, which writes it under the node."""

import importlib
import logging
import time
from typing import Any

from comfy_execution.utils import get_executing_context

from ....sparse_model.cost import Cost
from ....sparse_model.method.guidance import RULES
from ....sparse_model.method.schedule import Schedule
from ..adapters import adapter_of
from ..cost import step_costs
from .run import Run

EVENT = "sparse_guidance.cost"


def tell_cost(guider: Any, run: Run, schedule: Schedule, shape: tuple[int, ...]) -> None:
    """Says what the run of a guider over a latent [B, C, ...] cost, unless it ended before its first step."""
    if run.began is None:
        return
    seconds = (time.perf_counter() - run.began) / run.steps
    compared = against_cfg(guider, run, schedule, shape)
    text = f"{f'{compared:.0%} of the work of CFG, ' if compared else ''}{seconds:.2f} s per step, {run.steps} steps"
    logging.info("Sparse Guidance: %s.", text)
    running = get_executing_context()
    server = importlib.import_module("server").PromptServer.instance
    if running is not None and server.client_id is not None:  # None is every editor that is open
        told = {"node": running.node_id, "prompt_id": running.prompt_id, "text": text}
        server.send_sync(EVENT, told, server.client_id)


def against_cfg(guider: Any, run: Run, schedule: Schedule, shape: tuple[int, ...]) -> float | None:
    """Multiply-adds of the run's mean step, as a share of CFG's; None for a network whose cost is not known."""
    model = guider.model_patcher
    try:
        adapter = adapter_of(model)
        positive = guider.original_conds["positive"]
        text = adapter.text_tokens([[each["cross_attn"], each] for each in positive])
        stay = 0 if run.mask is None else adapter.staying(run.mask, shape).count
        cfg = guider.cfg if RULES[schedule.rule].beside_cfg else 1.0
        weak = getattr(guider.auxiliary, "patcher", None) if RULES[schedule.rule].auxiliary else None
        steps = step_costs(model, schedule, run.steps, shape, text, cfg, stay, weak)
        cost = Cost.mean(step.cost for step in steps)
    except Exception as unknown:  # of other nodes' guiders and networks; a text must not cost a picture
        logging.debug("Sparse Guidance: the cost of this run is not known (%s).", unknown)
        return None
    return cost.total / cost.cfg
