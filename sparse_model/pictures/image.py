"""From network outputs to pictures that people look at."""

from collections.abc import Mapping

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor


def to_image(x: Tensor) -> Image.Image:
    """[3, H, W] in [-1, 1] -> an RGB image; values outside are clipped."""
    pixels = ((x.clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0)
    return Image.fromarray(np.ascontiguousarray(pixels.numpy()))


def contact_sheet(rows: Mapping[str, Tensor], scale: int = 4, columns: list[str] | None = None) -> Image.Image:
    """One titled row per entry, rows of pictures [B, 3, H, W] in [-1, 1] enlarged `scale` times without smoothing.

    `columns` are written above, each comma-separated part on a line of its own.
    """
    batch, _, height, width = next(iter(rows.values())).shape
    height, width, gap, line = height * scale, width * scale, 6, 18
    font = ImageFont.load_default(13)
    headers = [text.split(", ") for text in columns or ()]
    header = line * max(map(len, headers), default=0)
    sheet = Image.new("RGB", (gap + batch * (width + gap), header + len(rows) * (line + height + gap)), "white")
    draw = ImageDraw.Draw(sheet)
    for column, parts in enumerate(headers):
        draw.text((gap + column * (width + gap), 2), "\n".join(parts), "black", font)
    for row, (title, pictures) in enumerate(rows.items()):
        top = header + row * (line + height + gap)
        draw.text((gap, top + 1), title, "black", font)
        for column, picture in enumerate(pictures):
            tile = to_image(picture).resize((width, height), Image.Resampling.NEAREST)
            sheet.paste(tile, (gap + column * (width + gap), top + line))
    return sheet
