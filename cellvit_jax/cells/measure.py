"""What is known of every instance, as columns: box, centroid, outline, area, type, pooled maps."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from cellvit_jax.cells.compiled import compiled
from cellvit_jax.cells.contours import contours
from cellvit_jax.cells.planes import Planes

MIN_POINTS = 3  # of an outline worth reporting
EPSILON = 1e-6  # the originals' guard in the share of votes


def measure(
    inst: np.ndarray, planes: Planes, origin: tuple[int, int] = (0, 0), *, masked: bool = False
) -> tuple[pa.Table, np.ndarray]:
    """The columns of `Cells`, but for the id, of instances 1..N, and which of them are reported.

    `inst` int32 (H, W) has its ids in the raster order of their first pixels; `planes` are those
    it was found in, `origin` (row, column) their place in the image that the columns are to speak
    of. Not reported: instances of nothing but background type, outlines under three points.
    Tokens are means over the token cells that the box touches; with `masked`, over the pixels.
    """
    counts, sums, boxes = _census(inst, planes.types, int(inst.max()), int(planes.types.max()) + 1)
    points, offsets = contours(inst, boxes)
    area, kinds = counts.sum(1), _kinds(counts)
    reported = (kinds > 0) & (np.diff(offsets) >= MIN_POINTS)
    votes = counts[np.arange(len(kinds)), kinds]
    # Relative to the box first: the same to the last bit in whatever window a cell is found.
    centroids = (sums - boxes[:, :2] * area[:, None]) / area[:, None]
    boxes += np.tile(np.array(origin, np.int32), 2)
    centroids += boxes[:, :2]
    columns = {
        "centroid_x": centroids[:, 1],
        "centroid_y": centroids[:, 0],
        **{f"bbox_{side}": boxes[:, i] for i, side in enumerate(("r0", "c0", "r1", "c1"))},
        "area": area.astype(np.float64),
        "type": kinds,
        "type_prob": np.float32(votes / (area + EPSILON)),
        "contour": _lists(offsets, _vectors(points + np.array(origin[::-1], np.int32))),
    }
    if planes.probabilities is not None:
        inside = inst > 0
        vectors = planes.probabilities[inside].astype(np.float32)
        means = _sums(inst[inside], vectors, len(area)) / area[:, None]
        if planes.probabilities.dtype == np.uint8:  # rounded, they need not add up to 255
            means /= means.sum(1, keepdims=True)
        starts = np.arange(len(means) + 1) * means.shape[1]
        columns["probabilities"] = _lists(starts, np.float32(means).reshape(-1))
    if planes.tokens is not None:
        sides = np.array([side.as_integer_ratio() for side in planes.token_sides])
        pooled = (
            _masked(planes.tokens, inst, area, sides, (*origin, planes.first_token))
            if masked
            else _pooled(planes.tokens, boxes, sides, planes.first_token)
        )
        columns["token"] = _vectors(pooled)
    return pa.table(columns), reported


def numbered(table: pa.Table) -> pa.Table:
    """The rows under ids 1..N, in the column `id`."""
    return table.add_column(0, "id", pa.array(np.arange(1, table.num_rows + 1)))


def first_columns(inst: np.ndarray, count: int, left: int = 0) -> pa.Array:
    """The column of the first pixel of instances 1..N, `left` being the column of the map."""
    return pa.array(_first_columns(inst, count) + left, pa.int32())


def pixel_runs(inst: np.ndarray, count: int, origin: tuple[int, int] = (0, 0)) -> pa.ListArray:
    """The pixels of instances 1..N as runs: row, first column, end, row, ... of each."""
    runs, owners = _runs(inst)
    order = np.argsort(owners, kind="stable")
    place = np.array([origin[0], origin[1], origin[1]], np.int32)
    starts = np.concatenate([[0], np.cumsum(np.bincount(owners, minlength=count + 1)[1:])])
    return _lists(3 * starts, (runs[order] + place).reshape(-1))


@compiled
def _first_columns(inst, count):
    columns = np.zeros(count, np.int32)
    seen = 0
    for r in range(inst.shape[0]):
        for c in range(inst.shape[1]):
            if inst[r, c] > seen:
                columns[seen] = c
                seen += 1
    return columns


@compiled
def _runs(inst):
    """Row, first column and end of every run of equal ids, and those ids, in raster order."""
    runs = [np.int32(0) for _ in range(0)]
    owners = [np.int32(0) for _ in range(0)]
    for r in range(inst.shape[0]):
        start = 0
        for c in range(1, inst.shape[1] + 1):
            if c == inst.shape[1] or inst[r, c] != inst[r, start]:
                if inst[r, start] > 0:
                    runs.append(np.int32(r))
                    runs.append(np.int32(start))
                    runs.append(np.int32(c))
                    owners.append(inst[r, start])
                start = c
    return np.array(runs, np.int32).reshape(-1, 3), np.array(owners, np.int32)


@compiled
def _census(inst, types, count, classes):
    """Per instance: pixels of each type, sums of rows and columns, box."""
    counts = np.zeros((count, classes), np.int64)
    sums = np.zeros((count, 2), np.int64)
    boxes = np.zeros((count, 4), np.int32)
    boxes[:, :2] = np.iinfo(np.int32).max
    for r in range(inst.shape[0]):
        for c in range(inst.shape[1]):
            i = inst[r, c] - 1
            if i < 0:
                continue
            counts[i, types[r, c]] += 1
            sums[i, 0] += r
            sums[i, 1] += c
            box = boxes[i]
            box[0], box[1] = min(box[0], r), min(box[1], c)
            box[2], box[3] = max(box[2], r + 1), max(box[3], c + 1)
    return counts, sums, boxes


def _kinds(counts):
    """The most frequent type, the lower of equals; background only if there is nothing else."""
    others = counts.copy()
    others[:, 0] = 0
    return np.argmax(others, 1).astype(np.int32)


@compiled
def _sums(ids, vectors, count):
    """Sums of vectors (N, C) over the pixels (N,) of every instance."""
    sums = np.zeros((count, vectors.shape[1]))
    for n in range(len(ids)):
        for k in range(vectors.shape[1]):
            sums[ids[n] - 1, k] += vectors[n, k]
    return sums


@compiled
def _pooled(tokens, boxes, sides, first):
    """Mean token over the token cells that each box touches, with these sides as fractions."""
    (height, rows), (width, columns) = sides
    means = np.zeros((len(boxes), tokens.shape[2]))
    for i in range(len(boxes)):
        r0, c0, r1, c1 = boxes[i]
        # Ceilings by floor division of the negative: integers, for any ratio of the sizes.
        top, bottom = r0 * rows // height - first, -(-r1 * rows // height) - first
        left, right = c0 * columns // width, -(-c1 * columns // width)
        for r in range(top, bottom):
            for c in range(left, right):
                means[i] += tokens[r, c]
        means[i] /= (bottom - top) * (right - left)
    return means


@compiled
def _masked(tokens, inst, area, sides, place):
    """Mean token over the pixels of every instance; each has the token cell it lies in."""
    (height, rows), (width, columns) = sides
    top, left, first = place
    means = np.zeros((len(area), tokens.shape[2]))
    for r in range(inst.shape[0]):
        row = (2 * (r + top) + 1) * rows // (2 * height) - first
        for c in range(inst.shape[1]):
            if inst[r, c] > 0:
                means[inst[r, c] - 1] += tokens[row, (2 * (c + left) + 1) * columns // (2 * width)]
    return means / area.reshape(-1, 1)


def _lists(offsets, values):
    return pa.ListArray.from_arrays(np.int32(offsets), values)


def _vectors(rows):
    return pa.FixedSizeListArray.from_arrays(np.float32(rows).reshape(-1), rows.shape[1])
