"""Many small pictures on one page, for people who want to see what a set of images is like."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from cellvit_jax.exports import legend, overlay
from cellvit_jax.exports.overlay import Colour
from cellvit_jax.files import atomic_open

COLUMNS = 4
PANEL, GAP, CAPTION = 448, 16, 30  # pixels
TEXT = 17
INK, PAPER = (32, 33, 36), (255, 255, 255)
HALO = (255, 255, 255)


@dataclasses.dataclass(frozen=True, eq=False)
class Panel:
    """A picture with its nuclei: `image` (H,W,3) uint8, `outlines` (P,2) each, `points` (N,2).

    All points are pixel-centre coordinates, x then y.
    """

    caption: str
    image: np.ndarray
    outlines: Sequence[np.ndarray] = ()
    colours: Sequence[Colour] = ()
    points: Sequence[np.ndarray] = ()
    point_colours: Sequence[Colour] = ()


def write(
    panels: Sequence[Panel], entries: list[legend.Entry], path: str | os.PathLike[str]
) -> None:
    """Write `draw(panels, entries)` to `path` as a PNG. Raises OutputError."""
    with atomic_open(path) as file:
        Image.fromarray(draw(panels, entries)).save(file, format="PNG", compress_level=3)


def draw(panels: Sequence[Panel], entries: list[legend.Entry]) -> np.ndarray:
    """The page, (H,W,3) uint8 RGB: panels row by row, each under its caption, and a legend."""
    columns = min(COLUMNS, len(panels))
    rows = math.ceil(len(panels) / max(columns, 1))
    key = legend.draw(entries, size=TEXT + 3)
    width = columns * (PANEL + GAP) + GAP
    height = max(rows * (PANEL + CAPTION + GAP) + GAP, len(key))
    page = Image.new("RGB", (width + key.shape[1], height), PAPER)
    for i, panel in enumerate(panels):
        row, column = divmod(i, columns)
        _place(page, panel, GAP + column * (PANEL + GAP), GAP + row * (PANEL + CAPTION + GAP))
    page.paste(Image.fromarray(key), (width, 0))
    return np.asarray(page)


def _place(page: Image.Image, panel: Panel, x: int, y: int) -> None:
    pen = ImageDraw.Draw(page)
    font = legend.text_font(TEXT)
    pen.text((x, y + CAPTION / 2), _shortened(panel.caption, font), INK, font, anchor="lm")
    page.paste(Image.fromarray(_picture(panel)), (x, y + CAPTION))


def _shortened(text: str, font: ImageFont.FreeTypeFont) -> str:
    if font.getlength(text) <= PANEL:
        return text
    while text and font.getlength(text + "…") > PANEL:
        text = text[:-1]
    return text + "…"


def _picture(panel: Panel) -> np.ndarray:
    scale = PANEL / max(panel.image.shape[:2])
    size = [max(1, round(side * scale)) for side in panel.image.shape[1::-1]]
    how = cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA
    canvas = cv2.resize(panel.image, size, interpolation=how)
    overlay.stroke(canvas, panel.outlines, panel.colours, scale)
    for point, colour in zip(panel.points, panel.point_colours, strict=True):
        centre = np.rint((point + 0.5) * scale - 0.5).astype(int).tolist()
        for radius, ink in ((6, HALO), (4, colour)):
            cv2.circle(canvas, centre, radius, ink, cv2.FILLED, cv2.LINE_AA)
    return canvas
