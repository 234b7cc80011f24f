"""The cost of a plan as a picture: multiply-adds of every step, beside no guidance and CFG."""

import math
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from ..cost import Cost
from .schedule_plot import BOTTOM, COLORS, GRID, INK, LEFT, RIGHT, SCALE, SIZE, TOP

SHARED = "#8a8f98"


def cost_plot(costs: Sequence[Cost]) -> Image.Image:
    """An RGB picture, 640 x 360: one bar per step, of what both branches share and what each runs apart; lines for an
    unguided step and a step of CFG."""
    canvas = Image.new("RGB", (SIZE[0] * SCALE, SIZE[1] * SCALE), "white")
    draw = ImageDraw.Draw(canvas)
    font, small = ImageFont.load_default(15 * SCALE), ImageFont.load_default(12 * SCALE)
    top = max(max(cost.cfg, cost.total) for cost in costs) * 1.12
    unit, name = (1e12, "trillions") if top > 3e12 else (1e9, "billions")

    def point(along: float, value: float) -> tuple[float, float]:
        return (LEFT + (RIGHT - LEFT) * along) * SCALE, (BOTTOM - (BOTTOM - TOP) * value / top) * SCALE

    between = _round_step(top / 5)
    for tick in range(int(top / between) + 1):
        x, y = point(0, tick * between)
        draw.line((x, y, *point(1, tick * between)), GRID, SCALE)
        draw.text((x - 6 * SCALE, y), f"{tick * between / unit:g}", INK, small, anchor="rm")
    for number, cost in enumerate(costs):
        parts = {
            SHARED: cost.shared,
            COLORS["gamma strong"]: cost.strong - cost.shared,
            COLORS["gamma weak"]: cost.weak - cost.shared,
        }
        base = 0.0
        for color, height in parts.items():
            left, right = (number + 0.1) / len(costs), (number + 0.9) / len(costs)
            if height > 0:
                draw.rectangle((*point(left, base + height), *point(right, base)), fill=color)
            base += max(height, 0.0)
    draw.rectangle((*point(0, top), *point(1, 0)), outline=INK, width=SCALE)
    for label, value in (("no guidance", costs[0].unguided), ("CFG", costs[0].cfg)):
        draw.line((point(0, value), point(1, value)), INK, 2 * SCALE)
        x, y = point(1, value)
        draw.text((x - 6 * SCALE, y - 3 * SCALE), label, INK, small, anchor="rb")
    middle = (LEFT + RIGHT) / 2 * SCALE, (SIZE[1] - 26) * SCALE
    draw.text(middle, f"steps 1 to {len(costs)}; {name} of multiply-adds per picture", INK, small, anchor="mm")
    x = LEFT * SCALE
    for label, color in (("both", SHARED), ("strong", COLORS["gamma strong"]), ("weak", COLORS["gamma weak"])):
        draw.rectangle((x, 15 * SCALE, x + 20 * SCALE, 29 * SCALE), fill=color)
        draw.text((x + 26 * SCALE, 22 * SCALE), label, INK, font, anchor="lm")
        x += draw.textlength(label, font) + 50 * SCALE
    return canvas.resize(SIZE, Image.Resampling.LANCZOS)


def _round_step(least: float) -> float:
    """The first of 1, 2, 5, 10, 20, ... that is no smaller."""
    scale = 10 ** math.floor(math.log10(least))
    return next(factor * scale for factor in (1, 2, 5, 10) if factor * scale >= least)
