"""A picture for people: the tissue, each nucleus outlined in the colour of its class, a legend."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence

import cv2
import numpy as np
import pyarrow as pa
from PIL import Image

from cellvit_jax.cells.table import Classes
from cellvit_jax.errors import InputError
from cellvit_jax.exports import legend, outlines
from cellvit_jax.exports.blocks import Source, opened, regrouped
from cellvit_jax.exports.classes import completed
from cellvit_jax.files import atomic_open

Colour = tuple[int, int, int]

_SMALL, _LARGE = 1024, 4096  # pixels of the longer side: enlarged below, reduced above
_SUBPIXEL_BITS = 4
_ROWS = 65_536  # cells whose outlines are arrays of their own at one time


def write(
    cells: Source, image: np.ndarray, path: str | os.PathLike[str], *, scale: float = 1
) -> None:
    """Write `draw(cells, image)` to `path` as a PNG. Raises InputError, OutputError."""
    picture = Image.fromarray(draw(cells, image, scale=scale))
    with atomic_open(path) as file:
        # of the default level the file is 3 % smaller, and takes twice the time
        picture.save(file, format="PNG", compress_level=3)


def draw(cells: Source, image: np.ndarray, *, scale: float = 1) -> np.ndarray:
    """The RGB `image`, (H, W, 3) uint8, with its `cells` outlined and a legend to the right.

    `scale` is the image's width over that of the image the cells are of: under 1 for a thumbnail.
    A small image is enlarged by a whole factor, so that outlines can be told apart; of a large one
    the longer side is reduced to 4096 pixels.
    """
    image = np.asarray(image)
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise InputError(
            "an overlay is drawn on an RGB image, (H, W, 3) uint8, not on "
            f"{image.dtype} of shape {image.shape}"
        )
    head, tables = opened(cells)
    canvas, enlarged = fitted(image)
    types: Counter[int] = Counter()
    for batch in regrouped(tables, _ROWS):
        _outline(batch, head.classes, canvas, scale * enlarged)
        types.update(batch["type"].to_pylist())
    return _side_by_side(canvas, _legend(types, head.classes, max(canvas.shape)))


def fitted(image: np.ndarray) -> tuple[np.ndarray, float]:
    """A copy of the image that people can see things in, and how much larger it is."""
    longer = max(image.shape[:2])
    scale = -(-_SMALL // longer) if longer < _SMALL else min(1.0, _LARGE / longer)
    if scale == 1:
        return image.copy(), 1.0
    size = [max(1, round(side * scale)) for side in image.shape[1::-1]]
    how = cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA
    return cv2.resize(image, size, interpolation=how), scale


def _outline(batch: pa.RecordBatch, classes: Classes, canvas: np.ndarray, scale: float) -> None:
    types = batch["type"].to_pylist()
    classes = completed(classes, set(types))
    points, starts = outlines.split(batch["contour"])
    colours = [classes[type_][1] for type_ in types]
    stroke(canvas, np.split(points, starts[1:-1]), colours, scale)


def stroke(
    canvas: np.ndarray, contours: Sequence[np.ndarray], colours: Sequence[Colour], scale: float
) -> None:
    """Draw closed contours, (P, 2) through pixel centres each, on a canvas `scale` times as large
    as the image that they are of."""
    thickness = 2 if scale >= 1 else 1
    for contour, colour in zip(contours, colours, strict=True):
        fixed_point = np.rint(((contour + 0.5) * scale - 0.5) * 2**_SUBPIXEL_BITS)
        points = [fixed_point.astype(np.int32)]
        cv2.polylines(canvas, points, True, colour, thickness, cv2.LINE_AA, _SUBPIXEL_BITS)


def _legend(counts: Counter[int], classes: Classes, longer_side: int) -> np.ndarray:
    entries = [
        legend.Entry(name, colour, counts[c])
        for c, (name, colour) in completed(classes, counts).items()
        if c
    ]
    return legend.draw(entries, size=max(18, longer_side / 56))


def _side_by_side(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    height = max(len(left), len(right))
    below = [[(0, height - len(part)), (0, 0), (0, 0)] for part in (left, right)]
    parts = [
        np.pad(part, pad, constant_values=255)
        for part, pad in zip((left, right), below, strict=True)
    ]
    return np.concatenate(parts, axis=1)
