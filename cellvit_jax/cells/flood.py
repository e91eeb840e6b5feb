"""The priority flood that divides touching nuclei, compiled."""

from __future__ import annotations

import numpy as np

from cellvit_jax.cells.compiled import compiled

OPEN = -1  # to be flooded, not yet reached
NONE = -1  # end of a linked list


def flood(labels: np.ndarray, heights: np.ndarray, parts: np.ndarray, highest: int) -> None:
    """Grow the positive `labels` into the `OPEN` pixels, highest `heights` first, in place.

    `labels`, `heights`, `parts`: int32 (H, W); `parts` holds the 4-connected components,
    0..`highest`. A pixel takes the label of the neighbour that reaches it first and
    passes the flood on at its own height or that of the pass it came over, whichever is lower.
    Equal heights go in order of arrival, the labelled pixels in raster order first; neighbours
    are visited up, left, right, down.
    """
    # NumPy asks for huge pages, numba does not; what is never touched costs nothing.
    pixels, heap = np.empty(labels.size, np.int32), np.empty(labels.size, np.int64)
    _flood(labels, heights.reshape(-1), parts.reshape(-1), highest, pixels, heap)


@compiled
def _flood(labels, height, parts, highest, pixels, heap):
    arrivals = _shores(labels, pixels)
    first, following = _by_part(pixels[:arrivals], parts, highest)
    # One component after the other: components do not touch, and small heaps are fast heaps.
    for part in range(highest + 1):
        size, shore = 0, first[part]
        while shore != NONE:
            _push(heap, size, _key(height[pixels[shore]], shore))
            size, shore = size + 1, following[shore]
        arrivals = _spread(labels, height, pixels, arrivals, heap, size)


@compiled
def _spread(labels, height, pixels, arrivals, heap, size):
    rows, columns = labels.shape
    while size:
        key = _pop(heap, size)
        size -= 1
        level = -(key >> 32)
        r, c = divmod(pixels[key & 0xFFFFFFFF], columns)
        for dr, dc in ((-1, 0), (0, -1), (0, 1), (1, 0)):
            i, j = r + dr, c + dc
            if 0 <= i < rows and 0 <= j < columns and labels[i, j] == OPEN:
                labels[i, j] = labels[r, c]
                pixels[arrivals] = i * columns + j
                _push(heap, size, _key(min(height[pixels[arrivals]], level), arrivals))
                arrivals, size = arrivals + 1, size + 1
    return arrivals


@compiled
def _shores(labels, pixels):
    """Collect the labelled pixels beside an open one, in raster order; how many there are."""
    found = 0
    for r in range(labels.shape[0]):
        for c in range(labels.shape[1]):
            if labels[r, c] > 0 and _beside_open(labels, r, c):
                pixels[found] = r * labels.shape[1] + c
                found += 1
    return found


@compiled
def _beside_open(labels, r, c):
    rows, columns = labels.shape
    return (
        (r > 0 and labels[r - 1, c] == OPEN)
        or (c > 0 and labels[r, c - 1] == OPEN)
        or (c + 1 < columns and labels[r, c + 1] == OPEN)
        or (r + 1 < rows and labels[r + 1, c] == OPEN)
    )


@compiled
def _by_part(pixels, part, highest):
    """Linked lists: the first pixel of every part, and the one after every pixel."""
    first = np.full(highest + 1, NONE, np.int32)
    following = np.empty(pixels.size, np.int32)
    for i in range(pixels.size - 1, -1, -1):
        following[i] = first[part[pixels[i]]]
        first[part[pixels[i]]] = i
    return first, following


@compiled
def _key(height, arrival):
    """One integer that sorts by falling height, then by arrival."""
    return (-np.int64(height) << 32) + arrival


@compiled
def _push(heap, size, key):
    i = size
    while i > 0 and heap[(i - 1) >> 1] > key:
        heap[i] = heap[(i - 1) >> 1]
        i = (i - 1) >> 1
    heap[i] = key


@compiled
def _pop(heap, size):
    top, last = heap[0], size - 1
    i, child = 0, 1
    while child < last:
        child += child + 1 < last and heap[child + 1] < heap[child]
        if heap[child] >= heap[last]:
            break
        heap[i] = heap[child]
        i, child = child, 2 * child + 1
    heap[i] = heap[last]
    return top
