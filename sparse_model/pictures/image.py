"""From network outputs to pictures that people look at."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor


def to_image(x: Tensor) -> Image.Image:
    """[3, H, W] in [-1, 1] -> an RGB image; values outside are clipped."""
    pixels = ((x.clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0)
    return Image.fromarray(np.ascontiguousarray(pixels.numpy()))


def contact_sheet(rows: Mapping[str, Tensor], scale: int = 4, columns: list[str] | None = None) -> Image.Image:
    """One titled row per entry, rows of pictures [B, 3, H, W] in [-1, 1] enlarged `scale` times without smoothing; as
    wide as the pictures or the longest title.

    `columns` are written above, each comma-separated part on a line of its own.
    """
    batch, _, height, width = next(iter(rows.values())).shape
    height, width, gap, line = height * scale, width * scale, 6, 18
    font = ImageFont.load_default(13)
    headers = [text.split(", ") for text in columns or ()]
    header = line * max(map(len, headers), default=0)
    longest = math.ceil(max(map(font.getlength, rows)))  # a title may be wider than its pictures
    across = gap + max(batch * (width + gap), longest + gap)
    sheet = Image.new("RGB", (across, header + len(rows) * (line + height + gap)), "white")
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


@dataclass(frozen=True)
class Tile:
    """One picture of a labelled sheet and the lines under it; without a picture the lines stand in its place."""

    picture: Image.Image | None
    caption: str = ""


def fitted(picture: Image.Image, side: int) -> Image.Image:
    """The picture with its longer side near `side` pixels: enlarged by whole factors without smoothing, or shrunk."""
    longest = max(picture.size)
    if longest > side:
        sizes = [max(round(length * side / longest), 1) for length in picture.size]
        return picture.resize(sizes, Image.Resampling.LANCZOS)
    return picture.resize([length * (side // longest) for length in picture.size], Image.Resampling.NEAREST)


def labelled_sheet(beside: Sequence[Tile], columns: Sequence[str], rows: Mapping[str, Sequence[Tile]]) -> Image.Image:
    """A first row of pictures to compare with, captions of two lines, and below it a grid with a title on every column
    and row, captions of one."""
    font, gap, line = ImageFont.load_default(14), 8, 19
    tiles = [*beside, *(tile for row in rows.values() for tile in row)]
    shown = [tile.picture.size for tile in tiles if tile.picture is not None] or [(160, 160)]
    captions = [part for tile in tiles if tile.picture is not None for part in tile.caption.split("\n")]
    width = max(*(size[0] for size in shown), *(round(font.getlength(text)) for text in (*captions, *columns)), 120)
    height = max(size[1] for size in shown)
    left = gap + max(round(font.getlength(title)) for title in rows) + gap
    across, below = max(len(columns), len(beside)), gap + height + 2 * line + gap
    down = height + line + gap
    sheet = Image.new("RGB", (left + across * (width + gap), below + line + len(rows) * down), "white")
    draw = ImageDraw.Draw(sheet)

    def place(tile: Tile, column: int, top: int) -> None:
        x = left + column * (width + gap)
        if tile.picture is None:
            draw.rectangle((x, top, x + width - 1, top + height - 1), outline="#c0c0c0")
            draw.multiline_text((x + 4, top + 4), _wrapped(tile.caption, width - 8, font), "#808080", font)
        else:
            sheet.paste(tile.picture, (x, top))
            draw.multiline_text((x, top + height + 2), tile.caption, "black", font)

    for column, tile in enumerate(beside):
        place(tile, column, gap)
    for column, title in enumerate(columns):
        draw.text((left + column * (width + gap), below), title, "black", font)
    for number, (title, row) in enumerate(rows.items()):
        top = below + line + number * down
        draw.text((gap, top + height // 2 - line // 2), title, "black", font)
        for column, tile in enumerate(row):
            place(tile, column, top)
    return sheet


def _wrapped(text: str, width: int, font: ImageFont.ImageFont) -> str:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return "\n".join(lines)
