"""The cells of a whole image, found block by block, as if it had been one tile.

The unit is the clump: an 8-connected group of nucleus pixels with whatever lies in its holes. All
that happens between pixels and cells happens inside a clump, so that a clump gives the same cells
in any window that does not cut it. A block solves the clumps that it holds whole; those that cross
from block to block are solved one by one, each in its own bounding box.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import cv2
import numpy as np
import pyarrow as pa

from cellvit_jax.cells.compiled import compiled
from cellvit_jax.cells.measure import measure, numbered
from cellvit_jax.cells.planes import Planes
from cellvit_jax.cells.table import Cells
from cellvit_jax.cells.watershed import filled, instances, renumber

BLOCK = 1024
CROSSING = 2  # marks a pixel whose clump lies in several blocks

Box = tuple[int, int, int, int]  # r0, c0, r1, c1


def stitch(planes: Planes, *, block: int = BLOCK) -> tuple[np.ndarray, Cells]:
    """Label image uint32 (H, W) and `Cells` of a whole image.

    They are those of one tile of the image's size, whatever the `block`, which sets the working
    memory: some 40 bytes for each of its pixels, or for each pixel of the largest clump's box.
    Instances that are not reported (see `extract_cells`) are left out of the label image.
    """
    labels = np.zeros(planes.binary.shape, np.uint32)
    todo = planes.binary.copy()
    tables, found = [], 0
    for box, binary in itertools.chain(_crossing_clumps(todo, block), _blocks(todo, block)):
        part = planes.crop(*box)
        inst = instances(binary, part.edge)
        table, reported = measure(inst, part, origin=box[:2])
        tables.append(table.filter(reported))
        _write(_window(labels, box), inst, _running_ids(reported, found))
        found += tables[-1].num_rows
    order = np.argsort(renumber(labels, found)[1:])
    return labels, Cells(numbered(pa.concat_tables(tables).take(order)))


def _running_ids(reported, found):
    return np.concatenate([[0], np.where(reported, found + np.cumsum(reported), 0)])


@compiled
def _write(labels, inst, ids):
    for r in range(inst.shape[0]):
        for c in range(inst.shape[1]):
            if inst[r, c] > 0:
                labels[r, c] = ids[inst[r, c]]


def _blocks(todo: np.ndarray, block: int) -> Iterator[tuple[Box, np.ndarray]]:
    """Every block, one pixel wider than it is, and its nucleus pixels, without its neighbours'."""
    height, width = todo.shape
    for r, c in itertools.product(range(0, height, block), range(0, width, block)):
        core = (r, c, min(r + block, height), min(c + block, width))
        box = _widened(core, todo.shape)
        binary = np.zeros((box[2] - box[0], box[3] - box[1]), np.uint8)
        inside = (r - box[0], c - box[1], core[2] - box[0], core[3] - box[1])
        _window(binary, inside)[:] = _window(todo, core)
        yield box, binary


def _crossing_clumps(todo: np.ndarray, block: int) -> Iterator[tuple[Box, np.ndarray]]:
    """The box of every clump that crosses blocks, and its pixels there; they leave `todo`."""
    seeds = _mark_crossing(todo, block)
    # A clump comes before those in its holes, which are part of it.
    for r, c, *corners in sorted(seeds, key=_area, reverse=True):
        if todo[r, c] != CROSSING:
            continue
        box = _widened(tuple(corners), todo.shape)
        window = _window(todo, box)
        inside = _outermost(window == CROSSING, r - box[0], c - box[1])
        yield box, inside & (window > 0)
        window[inside > 0] = 0


def _outermost(mask, r, c):
    """The 8-connected component at (r, c), holes filled."""
    _, parts = cv2.connectedComponents(mask.view(np.uint8), connectivity=8)
    return filled(np.pad((parts == parts[r, c]).view(np.uint8), 1))


def _widened(box, shape):
    r0, c0, r1, c1 = box
    return max(r0 - 1, 0), max(c0 - 1, 0), min(r1 + 1, shape[0]), min(c1 + 1, shape[1])


def _window(plane, box):
    r0, c0, r1, c1 = box
    return plane[r0:r1, c0:c1]


def _area(seed):
    _, _, r0, c0, r1, c1 = seed
    return (r1 - r0) * (c1 - c0)


@compiled
def _mark_crossing(todo, block):
    """Mark the clumps that lie in several blocks; a pixel and the box (r0, c0, r1, c1) of each."""
    rows, columns = todo.shape
    clumps = [(0, 0, 0, 0, 0, 0) for _ in range(0)]
    for r in range(rows):
        first, step = (0, 1) if r % block == 0 else (block, block)
        for c in range(first, columns, step):
            if todo[r, c] == 1 and _crosses(todo, r, c, block):
                clumps.append((r, c, *_mark(todo, r, c)))
    return clumps


@compiled
def _crosses(todo, r, c, block):
    for i in range(max(r - 1, 0), min(r + 2, todo.shape[0])):
        for j in range(max(c - 1, 0), min(c + 2, todo.shape[1])):
            if todo[i, j] and (i // block != r // block or j // block != c // block):
                return True
    return False


@compiled
def _mark(todo, r, c):
    """Mark the clump at (r, c) as crossing; its box."""
    r0, c0, r1, c1 = r, c, r + 1, c + 1
    todo[r, c] = CROSSING
    stack = [(r, c)]
    while stack:
        r, c = stack.pop()
        r0, c0, r1, c1 = min(r0, r), min(c0, c), max(r1, r + 1), max(c1, c + 1)
        for i in range(max(r - 1, 0), min(r + 2, todo.shape[0])):
            for j in range(max(c - 1, 0), min(c + 2, todo.shape[1])):
                if todo[i, j] == 1:
                    todo[i, j] = CROSSING
                    stack.append((i, j))
    return r0, c0, r1, c1
