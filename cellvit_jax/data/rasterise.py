"""Polygons → label images, by the middles of the pixels."""

from __future__ import annotations

import numpy as np
import shapely


def label_image(shapes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(H,W) int32 of `size` with ids 1..N for N valid shapely (multi)polygons, 0 elsewhere.

    Coordinates are corner-based, x then y: the middle of the first pixel is (0.5, 0.5). A pixel
    belongs to the shape that its middle lies in or on, so that outlines through the middles of
    pixels and outlines along their sides both give back the pixels they were traced from. Where
    shapes overlap, the smaller one wins.
    """
    labels = np.zeros(size, np.int32)
    shapely.prepare(shapes)
    for i in np.argsort(-shapely.area(shapes), kind="stable"):
        rows, cols = _box(shapes[i], size)
        ys, xs = np.mgrid[rows, cols] + 0.5
        labels[rows, cols][shapely.intersects_xy(shapes[i], xs, ys)] = i + 1
    return labels


def _box(shape: shapely.Geometry, size: tuple[int, int]) -> tuple[slice, slice]:
    """Rows and columns of the pixels whose middles lie in the box around a shape."""
    x0, y0, x1, y1 = shapely.bounds(shape)
    spans = ((y0, y1, size[0]), (x0, x1, size[1]))
    rows, cols = (_span(*span) for span in spans)
    return rows, cols


def _span(low: float, high: float, end: int) -> slice:
    if np.isnan(low):  # of an empty shape
        return slice(0, 0)
    first = min(max(0, int(np.ceil(low - 0.5))), end)
    return slice(first, min(max(first, int(np.floor(high - 0.5)) + 1), end))


def valid(shapes: np.ndarray) -> np.ndarray:
    """The shapes, those that cross themselves repaired; what has no area becomes empty."""
    broken = ~shapely.is_valid(shapes)
    repaired = shapely.make_valid(shapes[broken], method="structure", keep_collapsed=False)
    shapes = shapes.copy()
    shapes[broken] = repaired
    return shapes
