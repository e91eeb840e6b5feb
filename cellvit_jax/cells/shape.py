"""Perimeter, eccentricity and solidity of every instance, as scikit-image's `regionprops` has them.

They need nothing but an instance map, so they are measured where somebody wants them, and
`extract_cells` pays nothing for them. It has to be a map in the pixels that the cells were found
in: an outline that was scaled no longer tells which pixels are in it.
"""

from __future__ import annotations

import numpy as np

from cellvit_jax.cells.compiled import compiled
from cellvit_jax.cells.contours import STEPS, belongs

# A border pixel counts by its neighbours on the border: 1 + 2 for each beside, 10 for each
# diagonal one (Benkrid & Crookes).
WEIGHTS = np.zeros(50)
WEIGHTS[[5, 7, 15, 17, 25, 27]] = 1
WEIGHTS[[21, 33]] = np.sqrt(2)
WEIGHTS[[13, 23]] = (1 + np.sqrt(2)) / 2


def shapes(instances: np.ndarray, count: int) -> dict[str, np.ndarray]:
    """Columns of `Cells` for instances 1..`count` of an integer map (H, W), float32 each.

    `perimeter`: of the 4-connected border, in pixels. `eccentricity`: of the ellipse with the same
    second moments, 0 = circle. `solidity`: pixels of the instance over pixels of its convex hull.
    An id without pixels has NaN.
    """
    inst = instances.astype(np.int32, copy=False)
    boxes = _boxes(inst, count)
    sums = _sums(inst, boxes)
    with np.errstate(invalid="ignore"):
        solidity = sums[:, 0] / _hull_pixels(inst, boxes)
        perimeter = np.where(sums[:, 0] > 0, _perimeters(inst, count), np.nan)
    columns = {"perimeter": perimeter, "eccentricity": _eccentricity(*sums.T), "solidity": solidity}
    return {name: values.astype(np.float32) for name, values in columns.items()}


@compiled
def _boxes(inst, count):
    boxes = np.zeros((count, 4), np.int64)
    boxes[:, :2] = np.iinfo(np.int32).max
    for r in range(inst.shape[0]):
        for c in range(inst.shape[1]):
            if 0 < inst[r, c] <= count:
                box = boxes[inst[r, c] - 1]
                box[0], box[1] = min(box[0], r), min(box[1], c)
                box[2], box[3] = max(box[2], r + 1), max(box[3], c + 1)
    return boxes


@compiled
def _sums(inst, boxes):
    """Sums of 1, r, c, r², rc and c² over each instance, from the corner of its box."""
    sums = np.zeros((len(boxes), 6), np.int64)
    for row in range(inst.shape[0]):
        for column in range(inst.shape[1]):
            i = inst[row, column] - 1
            if 0 <= i < len(boxes):
                r, c = row - boxes[i, 0], column - boxes[i, 1]
                sums[i, 0] += 1
                sums[i, 1] += r
                sums[i, 2] += c
                sums[i, 3] += r * r
                sums[i, 4] += r * c
                sums[i, 5] += c * c
    return sums


def _eccentricity(n, r, c, rr, rc, cc):
    # n² times the covariance, in integers
    rr, rc, cc = n * rr - r * r, n * rc - r * c, n * cc - c * c
    gap = np.hypot(rr - cc, 2 * rc)  # between its eigenvalues, whose sum is the trace
    round_ = np.where(n > 0, 0, np.nan)  # a single pixel
    return np.sqrt(np.divide(2 * gap, rr + cc + gap, out=round_, where=rr + cc > 0))


@compiled
def _perimeters(inst, count):
    lengths = np.zeros(count)
    for r in range(inst.shape[0]):
        for c in range(inst.shape[1]):
            if 0 < inst[r, c] <= count and _on_border(inst, r, c):
                lengths[inst[r, c] - 1] += _length(inst, r, c)
    return lengths


@compiled
def _on_border(inst, r, c):
    if r == 0 or c == 0 or r == inst.shape[0] - 1 or c == inst.shape[1] - 1:
        return True
    i = inst[r, c]
    beside = inst[r - 1, c] == i and inst[r + 1, c] == i
    return not (beside and inst[r, c - 1] == i and inst[r, c + 1] == i)


@compiled
def _length(inst, r, c):
    code = 1
    for k in range(8):
        i, j = r + STEPS[k, 0], c + STEPS[k, 1]
        if belongs(inst, i, j, inst[r, c]) and _on_border(inst, i, j):
            code += 10 if k % 2 else 2
    return WEIGHTS[code]


@compiled
def _hull_pixels(inst, boxes):
    """Pixels in the convex hull of the middles of an instance's pixel sides, or on its border."""
    pixels = np.zeros(len(boxes), np.int64)
    for i in range(len(boxes)):
        r0, c0, r1, c1 = boxes[i]
        if r0 < r1:
            mask = inst[r0:r1, c0:c1] == i + 1
            beside = _before_hull(mask, 1) + _before_hull(mask, -1)
            pixels[i] = np.sum(np.maximum(c1 - c0 - beside, 0))
    return pixels


@compiled
def _before_hull(mask, step):
    """How many pixels of each row come before the convex hull; `step` -1 comes from the right.

    Everything in half pixels: the pixel (r, c) has its middle at y = 2r + 1, x = 2c + 1.
    """
    rows, columns = mask.shape
    nowhere = 2 * columns + 2
    nearest = np.full(2 * rows + 1, nowhere)
    for r in range(rows):
        c = 0
        while c < columns and not mask[r, c if step > 0 else columns - 1 - c]:
            c += 1
        if c < columns:
            nearest[2 * r] = min(nearest[2 * r], 2 * c + 1)
            nearest[2 * r + 1] = 2 * c
            nearest[2 * r + 2] = 2 * c + 1
    corners = _convex(nearest, nowhere)
    before = np.full(rows, columns)
    for k in range(len(corners) - 1):
        y0, y1 = corners[k], corners[k + 1]
        for y in range(y0 + (y0 + 1) % 2, y1 + 1, 2):
            # (x - 1) / 2 of the hull's side at y, rounded up
            x = (nearest[y0] - 1) * (y1 - y0) + (nearest[y1] - nearest[y0]) * (y - y0)
            before[y // 2] = -(-x // (2 * (y1 - y0)))
    return before


@compiled
def _convex(x, nowhere):
    """The y of the corners on the side of the hull where x is least."""
    corners = [0 for _ in range(0)]
    for y in range(len(x)):
        if x[y] == nowhere:
            continue
        while len(corners) > 1:
            y0, y1 = corners[-2], corners[-1]
            if (x[y1] - x[y0]) * (y - y0) < (x[y] - x[y0]) * (y1 - y0):
                break
            corners.pop()
        corners.append(y)
    return corners
