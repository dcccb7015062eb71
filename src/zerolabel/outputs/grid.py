"""The qualitative figure of papers: photo, truth and predictions side by side, and a legend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont

from zerolabel.outputs.colours import palette
from zerolabel.types import Image

SIDE = 320  # longest side of a picture, pixels
GAP, MARGIN = 10, 16
PAPER, INK, SOFT = (255, 255, 255), (25, 25, 25), (100, 100, 100)
BACKGROUND = (30, 30, 30)
NO_CLASS = (150, 150, 150)  # no colour of a class is grey
NOT_SCORED = (255, 255, 255)
TITLE, BODY = 17, 15  # size of letters
LEADING = 1.35


def class_colours(names: Sequence[str]) -> NDArray[np.uint8]:
    """Return the colours of C classes, of no class and of what is not scored.

    Args:
        names: of the classes; one called background is nearly black.

    Returns:
        RGB, uint8 (C + 2, 3).
    """
    colours = palette(len(names))
    colours[[i for i, name in enumerate(names) if name == "background"]] = BACKGROUND
    return np.concatenate([colours, np.array([NO_CLASS, NOT_SCORED], np.uint8)])


def draw_grid(
    rows: Sequence[Sequence[Image]],
    *,
    titles: Sequence[str],
    legend: Mapping[str, Sequence[int]],
    caption: str,
) -> Image:
    """Draw a figure: one row for each image, one column for the photo, the truth and each run.

    Args:
        rows: pictures of at most `SIDE` pixels, uint8 (h, w, 3), as many in each row as titles.
        titles: of the columns.
        legend: name -> RGB.
        caption: what was scored, and how.

    Returns:
        uint8 (H, W, 3).
    """
    width = len(titles) * (SIDE + GAP) - GAP
    total = max(width, SIDE * 2 + GAP)
    heads = [_wrapped(title, SIDE, TITLE) for title in titles]
    parts = [_heads(heads, total)]
    parts += [_row(row, total) for row in rows]
    parts += [_legend(legend, total), _lines(_wrapped(caption, total, BODY), total)]
    framed = [np.pad(part, ((0, GAP), (0, 0), (0, 0)), constant_values=255) for part in parts]
    edges = ((MARGIN, MARGIN), (MARGIN, MARGIN), (0, 0))
    figure: Image = np.pad(np.concatenate(framed), edges, constant_values=255)
    return figure


def _canvas(height: int, width: int) -> tuple[Pillow.Image, ImageDraw.ImageDraw]:
    canvas = Pillow.new("RGB", (width, height), PAPER)
    return canvas, ImageDraw.Draw(canvas)


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _wrapped(words: str, width: int, size: int) -> list[str]:
    """Break words into lines of at most so many pixels; a word that is longer stands alone."""
    font = _font(size)
    lines = [""]
    for word in words.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def _heads(heads: Sequence[Sequence[str]], width: int) -> Image:
    """Write the titles above their columns, ending on one line."""
    step = round(TITLE * LEADING)
    most = max(map(len, heads))
    canvas, draw = _canvas(most * step, width)
    for column, lines in enumerate(heads):
        middle = column * (SIDE + GAP) + SIDE / 2
        for i, line in enumerate(lines):
            top = (most - len(lines) + i) * step
            draw.text((middle, top), line, fill=INK, font=_font(TITLE), anchor="ma")
    return np.array(canvas)


def _row(pictures: Sequence[Image], width: int) -> Image:
    """Put pictures beside each other, each in the middle of its column."""
    height = max(picture.shape[0] for picture in pictures)
    canvas, draw = _canvas(height, width)
    for column, picture in enumerate(pictures):
        h, w = picture.shape[:2]
        left, top = column * (SIDE + GAP) + (SIDE - w) // 2, (height - h) // 2
        canvas.paste(Pillow.fromarray(picture), (left, top))
        draw.rectangle((left, top, left + w - 1, top + h - 1), outline=SOFT)
    return np.array(canvas)


def _legend(legend: Mapping[str, Sequence[int]], width: int) -> Image:
    """Write the classes beside their colours, in as many lines as it takes."""
    step, font = round(BODY * LEADING) + 4, _font(BODY)
    places, x, y = [], 0.0, 0
    for name in legend:
        room = BODY + 7 + font.getlength(name)
        if x and x + room > width:
            x, y = 0.0, y + step
        places.append((x, y))
        x += room + 22
    canvas, draw = _canvas(y + step, width)
    for (name, colour), (x, y) in zip(legend.items(), places, strict=True):
        box = (x, y + 1, x + BODY, y + 1 + BODY)
        draw.rectangle(box, fill=tuple(colour), outline=SOFT)
        draw.text((x + BODY + 7, y), name, fill=INK, font=font)
    return np.array(canvas)


def _lines(lines: Sequence[str], width: int) -> Image:
    step = round(BODY * LEADING)
    canvas, draw = _canvas(len(lines) * step, width)
    for i, line in enumerate(lines):
        draw.text((0, i * step), line, fill=SOFT, font=_font(BODY))
    return np.array(canvas)
