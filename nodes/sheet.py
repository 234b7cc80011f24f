"""A labelled contact sheet over two settings: how people find them by eye."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from comfy.model_management import throw_exception_if_processing_interrupted
from comfy_api.latest import io, ui

from ..sparse_model.files import printable
from ..sparse_model.method.guidance import RULES
from ..sparse_model.method.schedule import Curve, Schedule
from ..sparse_model.pictures.image import Tile, fitted, labelled_sheet
from .host.guide.checks import check_vae
from .host.guide.sheet import Setting, Sheet, cfg_alone, decoded, duration, rerouted
from .sockets import (
    CATEGORY,
    LARGEST_SCALE,
    PRESET_HELP,
    PRESET_NAMES,
    found_by,
    preset_schedule,
    sampler_inputs,
    seed_input,
    sparsity_input,
    within_scales,
)

NOTHING = "nothing"
MOST_STEPS = 10_000
LARGEST = 1 << 28
"""Pixels of all pictures of a sheet together: three gigabytes as the host's IMAGE."""
SHOWN = 40
"""Characters of a value in a title."""


def _scheduled(**curves: Callable[[str], object]) -> Callable[[object, Setting, str], Setting]:
    return lambda model, setting, text: replace(
        setting, schedule=replace(setting.schedule, **{name: value(text) for name, value in curves.items()})
    )


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        several = len(text.replace(";", " ").split()) > 1
        raise ValueError("this is not a number" + "; write commas between several" * several)
    return number


def _whole(text: str) -> int:
    if not (_number(text).is_integer() and abs(_number(text)) < 1 << 53):
        raise ValueError("this is not a whole number")
    return int(_number(text))


def _scale(text: str) -> float:
    return within_scales(_number(text))


def _constant(text: str) -> Curve:
    return Curve.constant(_number(text))


def _interval(model: object, setting: Setting, text: str) -> Setting:
    start, dash, end = text.partition("-")
    if not dash:
        raise ValueError("an interval is two numbers with a dash between them, such as 0-0.5")
    start, end = _number(start), _number(end)
    return replace(setting, schedule=replace(setting.schedule, start=start, end=end))


def _cfg(model: object, setting: Setting, text: str) -> Setting:
    if not RULES[setting.schedule.rule].beside_cfg:
        raise ValueError(f"the rule {setting.schedule.rule} has no cfg of its own; vary omega")
    return replace(setting, cfg=_scale(text))


AXES: dict[str, Callable[[object, Setting, str], Setting]] = {
    "preset": lambda model, setting, text: replace(setting, schedule=_preset(text, model)),
    "omega": lambda model, setting, text: replace(setting, schedule=setting.schedule.with_scale(_scale(text))),
    "gamma strong": _scheduled(gamma_strong=_constant),
    "gamma weak": _scheduled(gamma_weak=_constant),
    "cfg": _cfg,
    "route start": lambda model, setting, text: rerouted(model, setting, start=_whole(text)),
    "route end": lambda model, setting, text: rerouted(model, setting, end=_whole(text)),
    "interval": _interval,
    "steps": lambda model, setting, text: replace(setting, steps=_count(text)),
}
"""What may vary, in the order in which it is applied: (model, setting, value as it is written) -> setting."""


def _preset(text: str, model: object) -> Schedule:
    text = next((name for name in PRESET_NAMES if name.casefold() == text.casefold()), text)
    if text not in PRESET_NAMES:
        raise ValueError(f"there is no such preset; use {', '.join(PRESET_NAMES)}")
    return preset_schedule(text, model)


def _count(text: str) -> int:
    if not 1 <= _whole(text) <= MOST_STEPS:
        raise ValueError(f"there must be at least 1 step, and at most {MOST_STEPS}")
    return _whole(text)


class SparseGuidanceSheet(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        axes = [NOTHING, *AXES]
        return io.Schema(
            node_id="SparseGuidanceSheet",
            display_name="Sparse Guidance Sheet",
            category=CATEGORY,
            **found_by("contact sheet", "XY plot", "grid of settings"),
            is_output_node=True,
            description="Samples one seed at every combination of two lists of settings and puts the pictures on one "
            "labelled sheet, with cost and seconds under each, beside no guidance and CFG.",
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="Any model that Sparse KSampler takes. One without a token route gets two blocks a third "
                    "of the way in.",
                ),
                io.Conditioning.Input("positive", tooltip="What to draw."),
                io.Latent.Input("latent_image", tooltip="The latent to denoise; of a batch only the first picture."),
                io.Vae.Input("vae", tooltip="Makes pictures of the latents; of a video the frame in the middle."),
                io.Combo.Input("x_axis", options=axes, default="omega", tooltip="What varies from left to right."),
                io.String.Input(
                    "x_values",
                    default="2, 4, 6",
                    tooltip="Its values, separated by commas: 2, 4, 6. An interval is two numbers with a dash: 0-0.5.",
                ),
                io.Combo.Input("y_axis", options=axes, default="gamma weak", tooltip="What varies from top to bottom."),
                io.String.Input("y_values", default="0.5, 0.75, 1", tooltip="Its values, separated by commas."),
                io.Combo.Input(
                    "preset",
                    options=PRESET_NAMES,
                    default="like Skip Layer Guidance",
                    tooltip=f"What does not vary. {PRESET_HELP} Not used when sparsity is connected.",
                ),
                io.Float.Input(
                    "cfg",
                    default=1.0,
                    min=0.0,
                    max=LARGEST_SCALE,
                    step=0.1,
                    round=0.01,
                    tooltip="CFG's scale: of the picture of CFG that stands beside, and of the rule SG beside CFG. At "
                    "1 (distilled models) there is no CFG and no negative is needed.",
                ),
                seed_input("The same for all pictures."),
                io.Int.Input("steps", default=20, min=1, max=MOST_STEPS, tooltip="Denoising steps of each picture."),
                *sampler_inputs(),
                io.Float.Input(
                    "denoise", default=1.0, min=0.0, max=1.0, step=0.01, tooltip="How much of the latent is drawn anew."
                ),
                io.Int.Input(
                    "max_pictures",
                    default=36,
                    min=1,
                    max=10000,
                    tooltip="A larger sheet is not begun: the node says how many pictures it has and about how long "
                    "they take.",
                ),
                io.Int.Input(
                    "picture_size",
                    default=256,
                    min=32,
                    max=2048,
                    step=32,
                    tooltip="Longer side of each picture on the sheet, in pixels.",
                ),
                io.Conditioning.Input(
                    "negative",
                    optional=True,
                    tooltip="For CFG and the rules that use it; a class-conditional model of this pack needs none.",
                ),
                io.Model.Input("weak_model", optional=True, tooltip="For AG and AG + SG: an earlier checkpoint."),
                sparsity_input(),
            ],
            outputs=[
                io.Image.Output(display_name="sheet", tooltip="The contact sheet."),
                io.String.Output(display_name="table", tooltip="Settings, cost and seconds of every picture, as text."),
            ],
        )

    @classmethod
    def execute(
        cls,
        model: object,
        positive: list,
        latent_image: dict,
        vae: object,
        x_axis: str,
        x_values: str,
        y_axis: str,
        y_values: str,
        preset: str,
        cfg: float,
        seed: int,
        steps: int,
        sampler_name: str,
        scheduler: str,
        denoise: float,
        max_pictures: int,
        picture_size: int,
        negative: list | None = None,
        weak_model: object | None = None,
        sparsity: Schedule | None = None,
    ) -> io.NodeOutput:
        if x_axis == y_axis != NOTHING:
            raise ValueError(f"Both axes of the sheet vary {x_axis}; choose another x_axis or y_axis.")
        check_vae(model, vae)
        base = Setting(sparsity if sparsity is not None else preset_schedule(preset, model), steps, cfg)
        columns, rows = values_of("x", x_axis, x_values), values_of("y", y_axis, y_values)
        sampling = {"seed": seed, "sampler_name": sampler_name, "scheduler": scheduler, "denoise": denoise}
        sheet = Sheet(model, positive, negative, weak_model, latent_image, sampling)
        beside = {"no guidance": cfg_alone(1.0, steps)} | ({f"CFG {cfg:g}": cfg_alone(cfg, steps)} if cfg != 1 else {})
        count = len(columns) * len(rows) + len(beside)
        if count > max_pictures:
            places = range(0, len(columns) * len(rows), max(len(columns) * len(rows) // 16, 1))
            pairs = [(columns[place // len(rows)], rows[place % len(rows)]) for place in places]
            some = [cell(sheet, base, {x_axis: x, y_axis: y}) for x, y in pairs]
            found = [each for each in some if isinstance(each, Setting)] or [base]
            raise ValueError(
                f"This sheet has {count} pictures, which would take about {duration(sheet.seconds(found) * count)}; "
                f"shorten x_values or y_values, or raise max_pictures from {max_pictures}."
            )
        if count * picture_size**2 > LARGEST:
            side = math.isqrt(LARGEST // count)
            raise ValueError(
                f"A sheet of {count} pictures of {picture_size} pixels is too large for memory; use a picture_size of "
                f"{side} or less, or shorter lists."
            )
        grid = [[cell(sheet, base, {x_axis: x, y_axis: y}) for x in columns] for y in rows]
        compared = {title: possible(sheet, setting) for title, setting in beside.items()}
        cells = [*compared.values(), *(each for row in grid for each in row)]
        if all(isinstance(each, str) for row in grid for each in row):
            raise ValueError(f"No picture of this sheet can be sampled: {grid[0][0].rstrip('.')}.")
        sheet.make(each for each in cells if isinstance(each, Setting))
        pictures = {setting: fitted(decoded(vae, made.latent), picture_size) for setting, made in sheet.made.items()}

        def tile(found: Setting | str, title: str = "") -> Tile:
            if isinstance(found, str):
                return Tile(None, f"{title}: {found}" if title else found)
            return Tile(pictures[found], f"{title}\n{measured(sheet, found)}".strip())

        titles = [label(x_axis, x) for x in columns]
        made = labelled_sheet(
            [tile(found, title) for title, found in compared.items()],
            titles,
            {label(y_axis, y): [tile(found) for found in row] for y, row in zip(rows, grid, strict=True)},
        )
        table = [f"{title}: {told(sheet, found)}" for title, found in compared.items()]
        for y, row in zip(rows, grid, strict=True):
            names = (", ".join(filter(None, (title, label(y_axis, y)))) for title in titles)
            table += [f"{name}: {told(sheet, found)}" for name, found in zip(names, row, strict=True)]
        image = torch.from_numpy(np.asarray(made, dtype=np.float32) / 255).unsqueeze(0)  # [1, H, W, 3]
        return io.NodeOutput(image, "\n".join(table), ui=ui.PreviewImage(image, cls=cls))


def values_of(name: str, axis: str, text: str) -> list[str]:
    """The values of an axis, each once; ValueError if there are none."""
    if axis == NOTHING:
        return [""]
    values = list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not values:
        raise ValueError(f"The list {name}_values is empty; write values of {axis}, separated by commas.")
    return values


def label(axis: str, value: str) -> str:
    return "" if axis == NOTHING else f"{axis} {printable(value, SHOWN)}"


def varied(model: object, base: Setting, values: dict[str, str]) -> Setting:
    """The base with the values of both axes; ValueError that names the one that does not fit."""
    setting, left = base, {axis: value for axis, value in values.items() if axis != NOTHING}
    if left.keys() == {"gamma strong", "gamma weak"}:  # one value alone need not fit the other's old one
        strong, weak = _constant(left["gamma strong"]), _constant(left["gamma weak"])
        return replace(setting, schedule=replace(setting.schedule, gamma_strong=strong, gamma_weak=weak))
    for axis in (axis for axis in AXES if axis in left):
        try:
            setting = AXES[axis](model, setting, left[axis])
        except ValueError as error:
            raise ValueError(f"{label(axis, left[axis])}: {error}") from error
    return setting


def cell(sheet: Sheet, base: Setting, values: dict[str, str]) -> Setting | str:
    """A setting that can be sampled, or why it cannot. Of ten thousand the artist can press Cancel."""
    throw_exception_if_processing_interrupted()
    try:
        return possible(sheet, varied(sheet.model, base, values))
    except ValueError as error:
        return str(error)


def possible(sheet: Sheet, setting: Setting) -> Setting | str:
    """The setting, or why it cannot be sampled."""
    try:
        sheet.guider(setting.settled)
    except ValueError as error:
        return str(error)
    return setting.settled


def measured(sheet: Sheet, setting: Setting) -> str:
    """Cost against no guidance, and seconds."""
    found = sheet.made[setting]
    cost = "" if found.cost is None else f"cost {found.cost:.2f}, "
    return f"{cost}{found.seconds:.2f} s"


def told(sheet: Sheet, found: Setting | str) -> str:
    return found if isinstance(found, str) else measured(sheet, found)
