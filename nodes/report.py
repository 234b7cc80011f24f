"""What a plan costs, before anything is sampled."""

import numpy as np
import torch
from comfy_api.latest import io, ui

from ..sparse_model.cost import Cost
from ..sparse_model.method.schedule import Schedule
from ..sparse_model.pictures.cost_plot import cost_plot
from .host.adapters import adapter_of
from .host.cost import Step, even, step_costs
from .host.guide.checks import check_plan, check_weak_model, mask_over
from .host.guide.sampling import fitting
from .host.guide.timing import step_seconds
from .sockets import CATEGORY, SparsitySocket, cfg_input, found_by, mask_input


class SparseGuidanceReport(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SparseGuidanceReport",
            display_name="Sparse Guidance Report",
            category=CATEGORY,
            **found_by("SG cost", "GFLOPS", "benchmark"),
            is_output_node=True,
            description="What a plan costs on this model at this latent's size: multiply-adds and tokens of each "
            "branch, step by step, against CFG and no guidance.",
            inputs=[
                io.Model.Input("model", tooltip="A model with a token route."),
                SparsitySocket.Input("sparsity", tooltip="The plan, from Sparsity Scheduler."),
                io.Latent.Input("latent", tooltip="The latent that will be sampled; only its size counts."),
                io.Int.Input("steps", default=20, min=1, max=10000, tooltip="How many steps will be sampled."),
                io.Conditioning.Input(
                    "positive",
                    optional=True,
                    tooltip="Counts its text tokens, which every branch runs; without it 256 are assumed. Needed to "
                    "time a step.",
                ),
                io.Boolean.Input(
                    "time_a_step",
                    default=False,
                    optional=True,
                    tooltip="Also runs the model for a step without guidance, of CFG and of this plan, and says how "
                    "long each took.",
                ),
                cfg_input(),
                mask_input(),
                io.Model.Input(
                    "weak_model",
                    optional=True,
                    tooltip="For AG and AG + SG: its branch counts and is timed at the size of this model. Without "
                    "it, it counts at the size of the model itself and is not timed.",
                ),
            ],
            outputs=[
                io.String.Output(display_name="report", tooltip="The table, as text."),
                io.Image.Output(display_name="plot", tooltip="Multiply-adds of every step, as an image."),
            ],
        )

    @classmethod
    def execute(
        cls,
        model: object,
        sparsity: Schedule,
        latent: dict,
        steps: int,
        positive: list | None = None,
        time_a_step: bool = False,
        cfg: float = 1.0,
        mask: torch.Tensor | None = None,
        weak_model: object | None = None,
    ) -> io.NodeOutput:
        check_plan(model, sparsity)
        if weak_model is not None:
            check_weak_model(model, weak_model, sparsity.rule)
        shape = tuple(fitting(model, latent).shape)
        adapter = adapter_of(model)
        text = adapter.text_tokens(positive)
        placed = mask_over(model, sparsity, mask, shape)
        stay = 0 if placed is None else adapter.staying(placed, shape).count
        found = step_costs(model, sparsity, even(steps), shape, text, cfg, stay, weak_model)
        lines = table(sparsity, found, text)
        if stay:
            lines.insert(6, f"{stay} of {adapter.tokens(shape)} tokens are under the mask and never left out.")
        if time_a_step:
            lines += ["", *timed(model, sparsity, positive, shape, cfg, weak_model)]
        picture = np.asarray(cost_plot([step.cost for step in found]), dtype=np.float32) / 255
        plot = torch.from_numpy(picture).unsqueeze(0)  # [1, H, W, 3]
        report = "\n".join(lines)
        shown = {**ui.PreviewImage(plot, cls=cls).as_dict(), **ui.PreviewText(report).as_dict()}
        return io.NodeOutput(report, plot, ui=shown)


def timed(
    model: object,
    schedule: Schedule,
    positive: list | None,
    shape: tuple[int, ...],
    cfg: float,
    weak_model: object | None,
) -> list[str]:
    """What a step of each kind took, or what is missing to say it."""
    if positive is None:
        return ["No step was timed: that runs the model, which needs a conditioning. Connect positive."]
    seconds = step_seconds(model, schedule, positive, shape, cfg, weak_model)
    lines = [f"{name:14s} {time:8.3f}" for name, time in seconds.items()]
    if schedule.rule not in seconds:
        lines.append(f"{schedule.rule:14s} was not timed: it runs a second model. Connect weak_model.")
    return ["Seconds of one step, the better of two:", *lines]


def table(schedule: Schedule, steps: list[Step], text: int) -> list[str]:
    """Lines for people: the mean step beside CFG and no guidance, then one line for every run of equal steps."""
    cost = Cost.mean(step.cost for step in steps)
    rows = [("no guidance", cost.unguided), ("CFG", cost.cfg), (schedule.rule, cost.total)]
    counted = f"{text} text token{'s are' if text != 1 else ' is'} counted, and " if text else ""
    lines = [
        "GMACs per step and picture, attention included:",
        *(f"{name:14s} {value / 1e9:10.2f}" for name, value in rows),
        f"{cost.total / cost.cfg:.0%} of CFG, {cost.total / cost.unguided:.0%} of no guidance; {counted}"
        "what runs once for several branches counts once.",
        "The steps are taken to be even over progress, one evaluation each: the scheduler simple at denoise 1.",
        "",
        "step         strong: gamma   tokens   GMACs   weak: gamma   tokens   GMACs",
    ]
    start = 0
    for end in range(1, len(steps) + 1):
        if end < len(steps) and steps[end].kept == steps[start].kept:
            continue
        first, numbers = steps[start], f"{start + 1}" if end == start + 1 else f"{start + 1}-{end}"
        weak = "          does not run"
        if len(first.branches) > 1:
            gammas = "/".join(f"{branch.gamma:.3f}" for branch in first.branches[1:])
            tokens = "/".join(map(str, first.kept[1:]))
            weak = f"{gammas:>14} {tokens:>8} {first.cost.weak / 1e9:7.1f}"
        strong = f"{first.branches[0].gamma:14.3f} {first.kept[0]:8d} {first.cost.strong / 1e9:7.1f}"
        lines.append(f"{numbers:12s} {strong} {weak}")
        start = end
    return lines
