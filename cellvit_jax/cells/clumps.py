"""Clumps: 8-connected groups of nucleus pixels with whatever lies in their holes.

All that happens between pixels and cells happens inside a clump, so that a clump gives the same
cells in any window that does not cut it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import cv2
import numpy as np

from cellvit_jax.cells.compiled import compiled
from cellvit_jax.cells.pieces import Box
from cellvit_jax.cells.watershed import filled

NUCLEUS, MARKED = 1, 2

Seed = tuple[int, int, int, int, int, int]  # row, column, r0, c0, r1, c1


def crossing(
    todo: np.ndarray, rows: np.ndarray, cols: np.ndarray
) -> Iterator[tuple[Box, np.ndarray]]:
    """The clumps that cross the cuts before `rows` and `cols`: the box of each, its pixels there.

    Their pixels leave `todo`, uint8 (H, W) of 0/1.
    """
    row_blocks, col_blocks = (
        np.searchsorted(cuts, np.arange(n), side="right").astype(np.int32)
        for cuts, n in zip((rows, cols), todo.shape, strict=True)
    )
    seeds = _mark_crossing(todo, row_blocks, col_blocks)
    # A clump comes before those in its holes, which are part of it.
    for r, c, *corners in sorted(seeds, key=area, reverse=True):
        if todo[r, c] == MARKED:
            yield _take(todo, (r, c), tuple(corners))


def hanging(todo: np.ndarray) -> tuple[list[Seed], np.ndarray, int]:
    """What is open at the lower edge: the clumps that touch it, and all that they may enclose.

    With a nucleus along the edge they are one clump. Returns a pixel and the box of each, a mask of
    all their pixels, and the row of `todo`, uint8 (H, W) of 0/1, where the mask begins.
    """
    seeds = _mark_edge(todo)
    top = min((seed[2] for seed in seeds), default=len(todo))
    window = todo[top:]
    framed = np.zeros((len(window) + 2, todo.shape[1] + 2), np.uint8)
    np.equal(window, MARKED, out=framed[1:-1, 1:-1].view(bool))
    framed[-1] = 1
    mask = filled(framed) & (window > 0)
    window[window == MARKED] = NUCLEUS
    return seeds, mask, top


def clump(todo: np.ndarray, box: Box, at: tuple[int, int]) -> np.ndarray:
    """The pixels (h, w) of the clump at a pixel `at`, within its `box`."""
    window = _window(todo, box)
    return _outermost(window > 0, at[0] - box[0], at[1] - box[1]) & (window > 0)


def _take(todo, at, corners):
    box = widened(corners, todo.shape)
    window = _window(todo, box)
    inside = _outermost(window == MARKED, at[0] - box[0], at[1] - box[1])
    pixels = inside & (window > 0)
    window[inside > 0] = 0
    return box, pixels


def _outermost(mask, r, c):
    """The 8-connected component at (r, c), holes filled."""
    _, parts = cv2.connectedComponents(mask.view(np.uint8), connectivity=8)
    return filled(np.pad((parts == parts[r, c]).view(np.uint8), 1))


def widened(box: Sequence[int], shape: tuple[int, int], by: int = 1) -> Box:
    """A box with `by` more pixels on every side, as far as there are any."""
    r0, c0, r1, c1 = box
    return max(r0 - by, 0), max(c0 - by, 0), min(r1 + by, shape[0]), min(c1 + by, shape[1])


def _window(plane, box):
    r0, c0, r1, c1 = box
    return plane[r0:r1, c0:c1]


def area(seed: Sequence[int]) -> int:
    """Of the box of a clump (row, column, r0, c0, r1, c1)."""
    _, _, r0, c0, r1, c1 = seed
    return (r1 - r0) * (c1 - c0)


@compiled
def _mark_crossing(todo, rows, cols):
    """Mark the clumps that lie in several blocks; a pixel and the box (r0, c0, r1, c1) of each."""
    clumps = [(0, 0, 0, 0, 0, 0) for _ in range(0)]
    for r in range(todo.shape[0]):
        at_cut = r > 0 and rows[r] != rows[r - 1]
        for c in range(todo.shape[1]):
            if not (at_cut or (c > 0 and cols[c] != cols[c - 1])) or todo[r, c] != NUCLEUS:
                continue
            if _crosses(todo, r, c, rows, cols):
                clumps.append((r, c, *_mark(todo, r, c)))
    return clumps


@compiled
def _crosses(todo, r, c, rows, cols):
    for i in range(max(r - 1, 0), min(r + 2, todo.shape[0])):
        for j in range(max(c - 1, 0), min(c + 2, todo.shape[1])):
            if todo[i, j] and (rows[i] != rows[r] or cols[j] != cols[c]):
                return True
    return False


@compiled
def _mark_edge(todo):
    """Mark the clumps that touch the lower edge; a pixel and the box of each."""
    clumps = [(0, 0, 0, 0, 0, 0) for _ in range(0)]
    last = todo.shape[0] - 1
    for c in range(todo.shape[1]):
        if todo[last, c] == NUCLEUS:
            clumps.append((last, c, *_mark(todo, last, c)))
    return clumps


@compiled
def _mark(todo, r, c):
    """Mark the clump at (r, c); its box."""
    r0, c0, r1, c1 = r, c, r + 1, c + 1
    todo[r, c] = MARKED
    stack = [(r, c)]
    while stack:
        r, c = stack.pop()
        r0, c0, r1, c1 = min(r0, r), min(c0, c), max(r1, r + 1), max(c1, c + 1)
        for i in range(max(r - 1, 0), min(r + 2, todo.shape[0])):
            for j in range(max(c - 1, 0), min(c + 2, todo.shape[1])):
                if todo[i, j] == NUCLEUS:
                    todo[i, j] = MARKED
                    stack.append((i, j))
    return r0, c0, r1, c1
