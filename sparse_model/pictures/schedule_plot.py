"""A schedule as a picture: three curves over progress, drawn with Pillow because every host has it."""

from PIL import Image, ImageDraw, ImageFont

from ..method.schedule import Curve, Schedule

SIZE = (640, 360)
LEFT, TOP, RIGHT, BOTTOM = 52, 44, 588, 306
SCALE = 2  # drawn larger and reduced, for smooth lines
INK, GRID, SHADE = "#222222", "#dddddd", "#eef4fb"
COLORS = {"gamma strong": "#1f77b4", "gamma weak": "#d95f02", "omega": "#2a9d4a"}


def schedule_plot(schedule: Schedule, steps: int = 40) -> Image.Image:
    """An RGB picture, 640 x 360. Dots mark the values at `steps` even steps; the active interval is shaded."""
    canvas = Image.new("RGB", (SIZE[0] * SCALE, SIZE[1] * SCALE), "white")
    draw = ImageDraw.Draw(canvas)
    font, small = ImageFont.load_default(15 * SCALE), ImageFont.load_default(12 * SCALE)
    top = _omega_top(schedule.omega)

    def point(progress: float, share: float) -> tuple[float, float]:
        return (
            (LEFT + (RIGHT - LEFT) * progress) * SCALE,
            (BOTTOM - (BOTTOM - TOP) * share) * SCALE,
        )

    draw.rectangle((*point(schedule.start, 1), *point(schedule.end, 0)), fill=SHADE)
    for tick in range(6):
        share = tick / 5
        draw.line((point(0, share), point(1, share)), GRID, SCALE)
        x, y = point(0, share)
        draw.text((x - 6 * SCALE, y), f"{share:.1f}", INK, small, anchor="rm")
        x, y = point(1, share)
        draw.text((x + 6 * SCALE, y), f"{1 + share * (top - 1):.2f}", COLORS["omega"], small, anchor="lm")
        x, y = point(share, 0)
        draw.text((x, y + 6 * SCALE), f"{share:.1f}", INK, small, anchor="mt")
    draw.text(
        ((LEFT + RIGHT) / 2 * SCALE, (SIZE[1] - 18) * SCALE), "progress: noise to picture", INK, small, anchor="mm"
    )
    draw.rectangle((*point(0, 1), *point(1, 0)), outline=INK, width=SCALE)

    curves = {
        "gamma strong": lambda progress: schedule.at(progress).gamma_strong,
        "gamma weak": lambda progress: schedule.at(progress).gamma_weak,
        "omega": lambda progress: (schedule.at(progress).omega - 1) / (top - 1),
    }
    x = LEFT * SCALE
    draw.text((x, 22 * SCALE), schedule.rule, INK, font, anchor="lm")
    x += draw.textlength(schedule.rule, font) + 28 * SCALE
    for name, curve in curves.items():
        line = [point(i / 400, curve(i / 400)) for i in range(401)]
        draw.line(line, COLORS[name], 2 * SCALE, joint="curve")
        for step in range(steps):
            dot = point(step / steps, curve(step / steps))
            draw.ellipse([value + sign * 2.5 * SCALE for sign in (-1, 1) for value in dot], COLORS[name])
        draw.line((x, 22 * SCALE, x + 20 * SCALE, 22 * SCALE), COLORS[name], 3 * SCALE)
        draw.text((x + 26 * SCALE, 22 * SCALE), name, INK, font, anchor="lm")
        x += draw.textlength(name, font) + 50 * SCALE
    return canvas.resize(SIZE, Image.Resampling.LANCZOS)


def _omega_top(omega: Curve) -> float:
    """The right axis runs from 1 to a round number above the highest omega."""
    return max(2.0, -(-omega.high // 1))
