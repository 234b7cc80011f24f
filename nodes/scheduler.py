"""Building a SPARSITY schedule and looking at it."""

import numpy as np
import torch
from comfy_api.latest import io

from ..sparse_model.method.guidance import RULES
from ..sparse_model.method.schedule import Curve, Schedule
from ..sparse_model.method.tokens import SELECTIONS
from ..sparse_model.pictures.schedule_plot import omega_top, schedule_plot
from .sockets import (
    CATEGORY,
    FROM_MODEL,
    LARGEST_SCALE,
    PRESET_HELP,
    PRESET_NAMES,
    SparsitySocket,
    found_by,
    preset_schedule,
    rarely_needed,
    within_scales,
)

CUSTOM = "custom"
SHAPES = {
    "constant": lambda start, end: Curve.constant(start),
    "linear": Curve.linear,
    "cosine": Curve.cosine,
    "step": Curve.step,
}
CURVES = {
    "gamma_strong": (0.5, 0.5, 0.99, "tokens that the strong branch leaves out of the route"),
    "gamma_weak": (0.9, 0.9, 1.0, "tokens that the weak branch leaves out; 1 drops the whole routed path"),
    "omega": (
        1.5,
        1.5,
        LARGEST_SCALE,
        "the guidance scale; 1 is no guidance (a stock sampler's cfg replaces the largest value, but not under the "
        "rule SG beside CFG)",
    ),
}


EDITOR_CURVES = {
    "linear": "linear",
    "monotone_cubic": "smooth",
    "LinearCurve": "linear",
    "MonotoneCubicCurve": "smooth",
}
"""The host's names of what joins the points of a CURVE, and of its classes, and ours."""


def curve_inputs(name: str, start: float, end: float, highest: float, meaning: str) -> list[io.Input]:
    kind = "Fraction of " if name != "omega" else "Value of "
    number = {"min": 0.0, "max": highest, "step": 0.05, "round": 0.001}
    return [
        io.Float.Input(
            f"{name}_start", default=start, **number, tooltip=f"{kind}{meaning}. At the first step (preset custom)."
        ),
        io.Float.Input(
            f"{name}_end",
            default=end,
            **number,
            tooltip=f"{kind}{meaning}. At the last step; not used by the shape constant (preset custom).",
        ),
        io.Combo.Input(
            f"{name}_shape",
            options=list(SHAPES),
            default="constant",
            tooltip=f"How {name} goes from start to end; step changes half way (preset custom).",
        ),
    ]


def keyframes_input(name: str) -> io.Input:
    return io.String.Input(
        f"{name}_keyframes",
        default="",
        optional=True,
        placeholder="0:0.5, 0.3:0.2, 1:0",
        tooltip=f"{name} as progress:value pairs joined by straight lines, such as 0:0.5, 0.3:0.2; 'cosine', 'step' or "
        "'smooth' in front joins them so. Replaces start, end and shape (preset custom).",
    )


def drawn_inputs() -> list[io.Input]:
    """A socket for each curve as it is drawn in the host's Curve Editor, where the host has one."""
    if not hasattr(io, "Curve"):
        return []
    height = dict.fromkeys(CURVES, "the height is the value") | {"omega": "bottom is 1, top is omega_start"}
    return [
        io.Custom("CURVE").Input(
            f"{name}_curve",
            optional=True,
            tooltip=f"{name} from a Curve Editor: left is noise, right is the picture, {height[name]}. Replaces "
            f"{'end, shape and keyframes' if name == 'omega' else 'start, end, shape and keyframes'} (preset custom).",
            extra_dict={"forceInput": True},
        )
        for name in CURVES
    ]


def setting_input() -> io.Input:
    """One of the settings that a file offers by name: text, for the names are known only with the file."""
    return io.String.Input(
        "setting",
        default="",
        multiline=True,
        optional=True,
        placeholder="setting: the recommended one",
        tooltip="The name of one of the settings that the model's file offers, such as 0.5 of CFG; empty takes what it "
        "recommends (preset 'from the model'). Typing suggests the names, and the loader's output about lists them.",
    )


class SparsityScheduler(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        percent = {"min": 0.0, "max": 1.0, "step": 0.01, "round": 0.001}
        return io.Schema(
            node_id="SparsityScheduler",
            display_name="Sparsity Scheduler",
            category=CATEGORY,
            **found_by("SG schedule", "gamma", "omega", "PDG"),
            description="How sparse the strong and the weak branch are, and how strongly they guide, over the progress "
            "of sampling. Shows the curves.",
            inputs=[
                io.Combo.Input(
                    "preset",
                    options=[CUSTOM, *PRESET_NAMES],
                    default=FROM_MODEL,
                    tooltip=f"{PRESET_HELP} custom: everything below but setting. Other presets use nothing of that, "
                    "and the editor hides it; where you can see it, changing it changes nothing.",
                ),
                io.Combo.Input(
                    "rule",
                    options=list(RULES),
                    default="SG",
                    tooltip="What the weak branch is (preset custom). SG: the same condition, sparser. CFG, CFG + SG: "
                    "the null condition. ICG: a random label. AG, AG + SG: an earlier checkpoint. SG beside CFG: SG is "
                    "added to CFG, which keeps the sampler's own cfg; at cfg 1 it needs no negative. CFG, ICG and AG "
                    "drop no tokens: they do not use gamma_strong, gamma_weak and selection.",
                ),
                *[field for name, values in CURVES.items() for field in curve_inputs(name, *values)],
                io.Float.Input(
                    "start_percent",
                    default=0.0,
                    **percent,
                    tooltip="Progress at which guidance begins; before it only the strong branch runs (preset custom).",
                ),
                io.Float.Input(
                    "end_percent",
                    default=1.0,
                    **percent,
                    tooltip="Progress at which guidance ends; after it only the strong branch runs (preset custom).",
                ),
                rarely_needed(
                    io.Combo.Input(
                        "selection",
                        options=list(SELECTIONS),
                        default="exact",
                        tooltip="exact: each step keeps exactly the given fraction of tokens. bernoulli: every token "
                        "stays by chance, as in the paper. structured: as many as exact, spread evenly; at gamma 0.75 "
                        "one of every 2 x 2, as SPRINT is trained (preset custom).",
                    )
                ),
                *[rarely_needed(keyframes_input(name)) for name in CURVES],
                io.Model.Input(
                    "model", optional=True, tooltip="Only for the preset 'from the model': whose settings to take."
                ),
                *drawn_inputs(),
                setting_input(),
            ],
            outputs=[
                SparsitySocket.Output(
                    display_name="sparsity", tooltip="For Sparse Guidance, Sparse Guider, Sparse KSampler."
                ),
                io.Image.Output(display_name="plot", tooltip="The curves, as an image."),
            ],
        )

    @classmethod
    def execute(cls, preset: str, model: object | None = None, setting: str = "", **values: object) -> io.NodeOutput:
        schedule = custom_schedule(values) if preset == CUSTOM else preset_schedule(preset, model, setting)
        picture = np.asarray(schedule_plot(schedule), dtype=np.float32) / 255
        plot = torch.from_numpy(picture).unsqueeze(0)  # [1, H, W, 3]
        return io.NodeOutput(schedule, plot, ui={"plan": [shown(schedule)]})


def shown(schedule: Schedule, points: int = 161) -> dict:
    """What the node's script draws: the rule, the plan in words, and values at even moments of progress."""
    moments = [schedule.at(i / (points - 1)) for i in range(points)]
    return {
        "rule": schedule.rule,
        "words": in_words(schedule),
        "start": schedule.start,
        "end": schedule.end,
        "curves": {name: [getattr(now, name) for now in moments] for name in CURVES},
        "omega_top": omega_top(schedule.omega),
    }


def in_words(schedule: Schedule) -> str:
    """One line: every curve's values from its start to its end."""
    parts = []
    for name in CURVES:
        curve = getattr(schedule, name)
        values = [f"{value:g}" for _, value in curve.keyframes]
        parts.append(f"{name.replace('_', ' ')} {values[0] if curve.low == curve.high else ' to '.join(values)}")
    if schedule.selection != "exact" and not RULES[schedule.rule].dense:
        parts.append(schedule.selection)
    return ", ".join(parts)


def used_widgets(preset: str, values: dict, offers: bool = False) -> list[str]:
    """The names of the inputs that decide something, given what the others say (True where that is known in a run
    only), and whether the model may offer settings by name."""
    if preset == FROM_MODEL:
        return ["preset", "model", *(["setting"] if offers or values.get("setting") else [])]
    if preset != CUSTOM:
        return ["preset"]
    used = ["preset", "rule", "start_percent", "end_percent"]
    dense = getattr(RULES.get(values.get("rule")), "dense", False)
    if not dense:
        used.append("selection")
    for name in CURVES:
        if dense and name != "omega":
            continue
        if values.get(f"{name}_curve"):
            used += [f"{name}_curve", *(["omega_start"] if name == "omega" else [])]
            continue
        used.append(f"{name}_keyframes")
        keyframes = values.get(f"{name}_keyframes")
        if not isinstance(keyframes, str) or not keyframes.strip():
            used += [f"{name}_start", f"{name}_shape"]
            if values.get(f"{name}_shape") != "constant":
                used.append(f"{name}_end")
    return used


def drawn_curve(drawn: object, bottom: float, top: float) -> Curve:
    """The curve of the host's CURVE, whose heights 0 and 1 are the values `bottom` and `top`: its own object, or what
    the widget of its editor holds. ValueError if it is none, or of another kind."""
    if isinstance(drawn, dict):
        points, kind = drawn.get("points"), drawn.get("interpolation", "monotone_cubic")
    else:
        points, kind = getattr(drawn, "points", None), type(drawn).__name__
    if points is None or kind not in EDITOR_CURVES:
        raise ValueError(f"a curve of the kind '{kind}' cannot be used here; draw one in a Curve Editor.")
    points = sorted((float(x), float(y)) for x, y in points)
    return Curve(tuple((x, bottom + y * (top - bottom)) for x, y in points), EDITOR_CURVES[kind])


def custom_schedule(values: dict) -> Schedule:
    """The schedule of the widgets' values; ValueError in one sentence if they contradict each other."""
    curves = {}
    for name in CURVES:
        keyframes = (values.get(f"{name}_keyframes") or "").strip()
        start, end, shape = (values[f"{name}_{part}"] for part in ("start", "end", "shape"))
        drawn = values.get(f"{name}_curve")
        try:
            if drawn is not None:
                curves[name] = drawn_curve(drawn, *((1.0, start) if name == "omega" else (0.0, 1.0)))
            else:
                curves[name] = Curve.parse(keyframes) if keyframes else SHAPES[shape](start, end)
            if name == "omega":
                for scale in (curves[name].low, curves[name].high):
                    within_scales(scale)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
    return Schedule(
        **curves,
        rule=values["rule"],
        start=values["start_percent"],
        end=values["end_percent"],
        selection=values["selection"],
    )
