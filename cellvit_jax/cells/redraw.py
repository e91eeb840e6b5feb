"""Outlines that change: cells drawn as a label image, and measured anew in one."""

from __future__ import annotations

import cv2
import numpy as np
import pyarrow as pa

from cellvit_jax.cells.measure import measure
from cellvit_jax.cells.planes import Planes
from cellvit_jax.cells.shape import shapes
from cellvit_jax.cells.table import Cells
from cellvit_jax.cells.watershed import renumber

BOX = ("bbox_r0", "bbox_c0", "bbox_r1", "bbox_c1")
GEOMETRY = ("centroid_x", "centroid_y", *BOX, "area", "contour")


def drawn(cells: Cells, size: tuple[int, int]) -> np.ndarray:
    """Label image int32 of `size` (H,W): row number + 1 of every cell, its holes filled.

    A cell inside another one's hole stays visible.
    """
    labels = np.zeros(size, np.int32)
    contours = cells.table["contour"].combine_chunks()
    for row in np.argsort(-cells.column("area"), kind="stable").tolist():
        points = contours[row].values.flatten().to_numpy().reshape(-1, 1, 2)
        cv2.drawContours(labels, [np.rint(points).astype(np.int32)], 0, row + 1, cv2.FILLED)
    return labels


def boxes(cells: Cells) -> np.ndarray:
    """The boxes (N,4) int32: r0, c0, r1, c1, end exclusive."""
    return np.stack([cells.column(name) for name in BOX], axis=1)


def redrawn(cells: Cells, labels: np.ndarray, changed: np.ndarray) -> tuple[Cells, np.ndarray]:
    """The cells with the geometry of those that are `changed` (N,) bool as it is in `labels`.

    `labels` int32 (H,W) holds row number + 1. Also which of the cells have an outline there that is
    worth reporting; a changed one without keeps the geometry that it had. Columns of `shapes`
    follow, where the cells have them.
    """
    count = len(cells)
    inst = labels.copy()
    ids = renumber(inst, count)[1:]
    mask = (inst > 0).view(np.uint8)
    table, worthy = measure(inst, Planes(mask, np.zeros((0, 0), np.float32), mask))
    there = ids > 0
    there[there] = worthy[ids[there] - 1]
    rows = pa.array(np.where(changed & there, count + ids - 1, np.arange(count)))
    columns = {}
    for name in GEOMETRY:
        old = cells.table[name].combine_chunks()
        columns[name] = pa.concat_arrays([old, table[name].combine_chunks().cast(old.type)])
    found = {name: values.take(rows) for name, values in columns.items()}
    for name, values in shapes(labels, count).items():
        if name in cells.table.schema.names:
            found[name] = pa.array(np.where(changed & there, values, cells.column(name)))
    return cells.replace_columns(**found), there
