"""Outlines of all instances of a map in one pass, as OpenCV's `findContours` would trace them."""

from __future__ import annotations

import cv2
import numpy as np

from cellvit_jax.cells.compiled import compiled

# Steps (row, column) to the neighbours, anticlockwise on the screen, beginning at the right.
STEPS = np.array([(0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1), (1, 0), (1, 1)])
LEFT = 4


def contours(inst: np.ndarray, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Corner points (P, 2) int32, x then y, of all outlines, and offsets (N + 1,) into them.

    `inst` int32 (H, W) holds ids 0..N in the raster order of their first pixels, `boxes` int32
    (N, 4) their r0, c0, r1, c1. Outlines run anticlockwise on the screen through pixel centres,
    8-connected; straight runs are reduced to their ends. An instance in several pieces has the
    outline that `findContours` lists first.
    """
    points, offsets, uncertain = _outlines(inst, len(boxes))
    if not uncertain.any():
        return points, offsets
    parts = np.split(points, offsets[1:-1])
    for i in np.flatnonzero(uncertain):
        parts[i] = _found(inst, i + 1, *boxes[i].tolist())
    return np.concatenate(parts), np.cumsum([0, *map(len, parts)])


def _found(inst, instance, r0, c0, r1, c1):
    mask = (inst[r0:r1, c0:c1] == instance).view(np.uint8)
    found, _ = cv2.findContours(mask, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE, offset=(c0, r0))
    return found[0][:, 0]


@compiled
def _outlines(inst, count):
    """Outlines from the first pixels, and which instances have, or may have, more pieces.

    A pixel with none of its instance left of or above it begins a piece, unless an outline has
    passed it already, or a hole is above it: the doubt that is left.
    """
    passed = np.zeros(inst.shape, np.bool_)
    uncertain = np.zeros(count, np.bool_)
    offsets = np.zeros(count + 1, np.int64)
    points = [np.int32(0) for _ in range(0)]
    seen = 0
    for r in range(inst.shape[0]):
        for c in range(inst.shape[1]):
            instance = inst[r, c]
            if instance == 0 or not _is_top(inst, r, c):
                continue
            if instance > seen:
                _trace(inst, r, c, points, passed)
                seen = instance
                offsets[seen] = len(points) // 2
            elif not passed[r, c]:
                uncertain[instance - 1] = True
    return np.array(points, np.int32).reshape(-1, 2), offsets, uncertain


@compiled
def _is_top(inst, r, c):
    return not (
        belongs(inst, r, c - 1, inst[r, c])
        or belongs(inst, r - 1, c, inst[r, c])
        or belongs(inst, r - 1, c - 1, inst[r, c])
        or belongs(inst, r - 1, c + 1, inst[r, c])
    )


@compiled
def belongs(inst, r, c, instance):
    return 0 <= r < inst.shape[0] and 0 <= c < inst.shape[1] and inst[r, c] == instance


@compiled
def _trace(inst, r, c, points, passed):
    """Append the corners of the outline that begins at its topmost pixel (r, c)."""
    back = _turn(inst, r, c, LEFT, -1)
    if back == LEFT:  # all alone
        _append(points, r, c)
        return
    end_r, end_c = r + STEPS[back, 0], c + STEPS[back, 1]
    i, j, heading = r, c, (back + 4) & 7
    while True:
        step = _turn(inst, i, j, (heading + 4) & 7, 1)
        passed[i, j] = True
        if step != heading:
            _append(points, i, j)
        at_end = i == end_r and j == end_c
        i, j, heading = i + STEPS[step, 0], j + STEPS[step, 1], step
        if at_end and i == r and j == c:
            return


@compiled
def _append(points, r, c):
    points.append(np.int32(c))
    points.append(np.int32(r))


@compiled
def _turn(inst, r, c, start, sense):
    """The next direction after `start` in which the instance goes on, or `start` if in none."""
    for turn in range(1, 8):
        step = (start + sense * turn) & 7
        if belongs(inst, r + STEPS[step, 0], c + STEPS[step, 1], inst[r, c]):
            return step
    return start
