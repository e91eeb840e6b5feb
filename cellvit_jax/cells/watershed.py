"""From nucleus pixels and edges to instances: markers, then a watershed from them."""

from __future__ import annotations

import cv2
import numpy as np

from cellvit_jax.cells.compiled import compiled
from cellvit_jax.cells.flood import OPEN, flood

MIN_SIZE = 10  # pixels of a nucleus, and of a marker
EDGE = np.float32(0.4)  # from here on a pixel is edge and no marker
# OpenCV's 5x5 ellipse, written out: how it is drawn is the library's own affair.
ELLIPSE = np.array(
    [[0, 0, 1, 0, 0], [1, 1, 1, 1, 1], [1, 1, 1, 1, 1], [1, 1, 1, 1, 1], [0, 0, 1, 0, 0]], np.uint8
)
SEVERAL = -1
OUTSIDE = 2
ONE = 1 << 24  # an edge of 1, in integers


def instances(binary: np.ndarray, edge: np.ndarray) -> np.ndarray:
    """Instance map int32 (H, W), 0 = background, ids 1..N in the raster order of first pixels.

    `binary` uint8 (H, W) of 0 and 1, `edge` float32 (H, W) as `edges` gives it.
    """
    parts, count = _components(binary)
    solid = cv2.morphologyEx(filled(_inner(parts, edge)), cv2.MORPH_OPEN, ELLIPSE)
    markers, highest = _components(solid)
    owners = _owners(parts, markers, count)
    _sow(markers, parts, owners)
    flood(markers, _heights(parts, owners, edge), parts, count)
    renumber(markers, highest)
    return markers


def filled(framed: np.ndarray) -> np.ndarray:
    """The mask inside a frame of one zero pixel, holes filled; uint8 0/1. `framed` is used up."""
    cv2.floodFill(framed, None, (0, 0), OUTSIDE)
    return (framed[1:-1, 1:-1] != OUTSIDE).view(np.uint8)


@compiled
def renumber(labels: np.ndarray, highest: int) -> np.ndarray:
    """Give the labels ids from 1 in the raster order of first pixels, in place.

    Returns the new id of every label 0..highest, 0 for one that does not occur.
    """
    ids = np.zeros(highest + 1, labels.dtype)
    flat = labels.reshape(-1)
    found = 0
    for i in range(flat.size):
        if flat[i] > 0:
            if ids[flat[i]] == 0:
                found += 1
                ids[flat[i]] = found
            flat[i] = ids[flat[i]]
    return ids


def _components(mask):
    """Labels of the 4-connected components, without the small ones, and the highest."""
    count, parts = cv2.connectedComponents(mask, connectivity=4)
    _drop_small(parts, count)
    return parts, count - 1


@compiled
def _drop_small(parts, count):
    sizes = np.zeros(count, np.int64)
    flat = parts.reshape(-1)
    for part in flat:
        sizes[part] += 1
    for i in range(flat.size):
        if sizes[flat[i]] < MIN_SIZE:
            flat[i] = 0


@compiled
def _inner(parts, edge):
    """Nucleus pixels that are no edge, framed by one pixel of background."""
    rows, columns = parts.shape
    inner = np.zeros((rows + 2, columns + 2), np.uint8)
    for r in range(rows):
        for c in range(columns):
            inner[r + 1, c + 1] = parts[r, c] > 0 and edge[r, c] < EDGE
    return inner


@compiled
def _owners(parts, markers, highest):
    """Per component the one marker on it, 0 without any, `SEVERAL` with more."""
    owners = np.zeros(highest + 1, np.int32)
    part, marker = parts.reshape(-1), markers.reshape(-1)
    for i in range(part.size):
        if marker[i] > 0 and part[i] > 0 and owners[part[i]] != marker[i]:
            owners[part[i]] = marker[i] if owners[part[i]] == 0 else SEVERAL
    return owners


@compiled
def _sow(markers, parts, owners):
    """Turn markers into labels: only components with several of them have to be flooded."""
    flat, part = markers.reshape(-1), parts.reshape(-1)
    for i in range(flat.size):
        owner = owners[part[i]]
        if owner != SEVERAL:
            flat[i] = owner
        elif flat[i] == 0:
            flat[i] = OPEN


def _heights(parts, owners, edge):
    """Smoothed opposite of the edges, int32, where `owners` says that it is needed.

    Edges are multiples of 2^-24 and the smoothing weighs in sixteenths: integers hold it exactly.
    """
    heights = np.zeros(parts.shape, np.int32)
    _raise(parts, edge, heights)
    _smooth(cv2.copyMakeBorder(heights, 1, 1, 1, 1, cv2.BORDER_REFLECT_101), parts, owners, heights)
    return heights


@compiled
def _raise(parts, edge, out):
    for r in range(parts.shape[0]):
        for c in range(parts.shape[1]):
            if parts[r, c] > 0:
                out[r, c] = ONE - np.int32(max(edge[r, c], 0) * ONE)


@compiled
def _smooth(framed, parts, owners, out):
    for r in range(parts.shape[0]):
        for c in range(parts.shape[1]):
            if owners[parts[r, c]] == SEVERAL:
                sides = _weighed(framed, r, c) + _weighed(framed, r + 2, c)
                out[r, c] = sides + 2 * _weighed(framed, r + 1, c)


@compiled
def _weighed(plane, r, c):
    return plane[r, c] + 2 * plane[r, c + 1] + plane[r, c + 2]
