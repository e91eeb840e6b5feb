"""The panel beside an overlay: how many nuclei, and which colour stands for which class."""

from __future__ import annotations

import dataclasses

import numpy as np
from PIL import Image, ImageDraw, ImageFont

_INK, _FAINT, _PAPER = (32, 33, 36), (150, 154, 160), (255, 255, 255)
_TITLE = 1.35  # of the text size, as are all distances below
_MARGIN, _LINE, _HEAD = 1.4, 1.9, 3.0
_SWATCH, _INDENT, _GAP = 1.0, 1.7, 2.0


@dataclasses.dataclass(frozen=True)
class Entry:
    """One line: a class, its RGB colour, and how many nuclei are of it."""

    name: str
    colour: tuple[int, int, int]
    count: int


def draw(entries: list[Entry], size: float) -> np.ndarray:
    """The panel as (H, W, 3) uint8, as large as its text of `size` pixels needs it to be."""
    total = sum(entry.count for entry in entries)
    title = f"{total:,} {'nucleus' if total == 1 else 'nuclei'}"
    width = _width(entries, title, size)
    height = round((2 * _MARGIN + _HEAD + _LINE * len(entries)) * size)
    panel = Image.new("RGB", (width, height), _PAPER)
    pen = ImageDraw.Draw(panel)
    pen.text((_MARGIN * size, _MARGIN * size), title, _INK, text_font(_TITLE * size))
    for row, entry in enumerate(entries):
        middle = (_MARGIN + _HEAD + (row + 0.5) * _LINE) * size
        _line(pen, entry, middle, width, size)
    return np.asarray(panel)


def _line(pen: ImageDraw.ImageDraw, entry: Entry, middle: float, width: int, size: float) -> None:
    left, right, half = _MARGIN * size, width - _MARGIN * size, _SWATCH * size / 2
    box = left, middle - half, left + 2 * half, middle + half
    pen.rounded_rectangle(box, size / 4, entry.colour, outline=_FAINT)
    ink = _INK if entry.count else _FAINT
    pen.text((left + _INDENT * size, middle), entry.name, ink, text_font(size), anchor="lm")
    pen.text((right, middle), f"{entry.count:,}", ink, text_font(size), anchor="rm")


def _width(entries: list[Entry], title: str, size: float) -> int:
    font = text_font(size)
    widest = max(
        (font.getlength(e.name) + font.getlength(f"{e.count:,}") for e in entries), default=0
    )
    line = widest + (_INDENT + _GAP) * size
    return round(max(line, text_font(_TITLE * size).getlength(title)) + 2 * _MARGIN * size)


def text_font(size: float) -> ImageFont.FreeTypeFont:
    """The font of all text in pictures, in pixels."""
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)  # what a given size always yields
    return font
