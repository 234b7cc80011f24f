"""A schedule as a picture: its curves over progress, drawn with Pillow because every host has it."""

from collections.abc import Callable

from PIL import Image, ImageDraw, ImageFont

from ..method.schedule import Curve, Schedule

SIZE = (640, 360)
LEFT, TOP, RIGHT, BOTTOM = 52, 44, 588, 306
GAMMAS, OMEGAS = (TOP, 206), (234, BOTTOM)
"""Top and bottom of the two panels: rates and a scale share no axis, so that no curve lies on another by accident."""
SCALE = 2  # drawn larger and reduced, for smooth lines
INK, GRID, SHADE = "#222222", "#dddddd", "#eef4fb"
COLORS = {"gamma strong": "#1f77b4", "gamma weak": "#d95f02", "omega": "#2a9d4a"}
WIDTHS = {"gamma strong": 2, "gamma weak": 6, "omega": 2}
"""The weak rate is drawn first and wider: where both are the same, it frames the strong one."""


def schedule_plot(schedule: Schedule, steps: int = 40) -> Image.Image:
    """An RGB picture, 640 x 360: the rates above, omega below. Dots mark the values at `steps` even steps; the active
    interval is shaded."""
    canvas = Image.new("RGB", (SIZE[0] * SCALE, SIZE[1] * SCALE), "white")
    draw = ImageDraw.Draw(canvas)
    font, small = ImageFont.load_default(15 * SCALE), ImageFont.load_default(12 * SCALE)
    top = omega_top(schedule.omega)
    _panel(draw, small, GAMMAS, schedule, [(share / 4, f"{share / 4:.2f}") for share in range(5)])
    _panel(draw, small, OMEGAS, schedule, [(share / 2, f"{1 + share / 2 * (top - 1):.2f}") for share in range(3)])
    for tick in range(6):
        x, y = _point(OMEGAS, tick / 5, 0)
        draw.text((x, y + 6 * SCALE), f"{tick / 5:.1f}", INK, small, anchor="mt")
    middle = (LEFT + RIGHT) / 2 * SCALE
    draw.text((middle, (SIZE[1] - 18) * SCALE), "progress: noise to picture", INK, small, anchor="mm")

    curves: dict[str, tuple[tuple[int, int], Callable[[float], float]]] = {
        "gamma weak": (GAMMAS, lambda progress: schedule.at(progress).gamma_weak),
        "gamma strong": (GAMMAS, lambda progress: schedule.at(progress).gamma_strong),
        "omega": (OMEGAS, lambda progress: (schedule.at(progress).omega - 1) / (top - 1)),
    }
    for name, (panel, curve) in curves.items():
        line = [_point(panel, i / 400, curve(i / 400)) for i in range(401)]
        draw.line(line, COLORS[name], WIDTHS[name] * SCALE, joint="curve")
        radius = (WIDTHS[name] / 2 + 1.5) * SCALE
        for step in range(steps):
            dot = _point(panel, step / steps, curve(step / steps))
            draw.ellipse([value + sign * radius for sign in (-1, 1) for value in dot], COLORS[name])
    _legend(draw, font, schedule.rule)
    return canvas.resize(SIZE, Image.Resampling.LANCZOS)


def omega_top(omega: Curve) -> float:
    """Omega's axis runs from 1 to a round number above the highest omega."""
    return max(2.0, -(-omega.high // 1))


def _point(panel: tuple[int, int], progress: float, share: float) -> tuple[float, float]:
    top, bottom = panel
    return (LEFT + (RIGHT - LEFT) * progress) * SCALE, (bottom - (bottom - top) * share) * SCALE


def _panel(draw: ImageDraw.ImageDraw, font: ImageFont.ImageFont, panel: tuple[int, int], schedule: Schedule, ticks):
    """The active interval, lines at (share, label) `ticks`, and a frame."""
    draw.rectangle((*_point(panel, schedule.start, 1), *_point(panel, schedule.end, 0)), fill=SHADE)
    for share, label in ticks:
        draw.line((_point(panel, 0, share), _point(panel, 1, share)), GRID, SCALE)
        x, y = _point(panel, 0, share)
        draw.text((x - 6 * SCALE, y), label, INK, font, anchor="rm")
    draw.rectangle((*_point(panel, 0, 1), *_point(panel, 1, 0)), outline=INK, width=SCALE)


def _legend(draw: ImageDraw.ImageDraw, font: ImageFont.ImageFont, rule: str) -> None:
    x, y = LEFT * SCALE, 22 * SCALE
    draw.text((x, y), rule, INK, font, anchor="lm")
    x += draw.textlength(rule, font) + 28 * SCALE
    for name, color in COLORS.items():
        draw.line((x, y, x + 20 * SCALE, y), color, 3 * SCALE)
        draw.text((x + 26 * SCALE, y), name, INK, font, anchor="lm")
        x += draw.textlength(name, font) + 50 * SCALE
