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
    parts, large = _components(binary)
    markers = _markers(_inner(parts, large, edge))
    owners = _owners(parts, large, markers)
    labels = _sown(parts, owners, markers)
    flood(labels, _heights(parts, large, owners, edge), parts, large.size)
    renumber(labels, int(markers.max()))
    return labels


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


def _components(binary):
    """4-connected components, and which of them are large enough."""
    count, parts = cv2.connectedComponents(binary, connectivity=4)
    large = _sizes(parts, count) >= MIN_SIZE
    large[0] = False
    return parts, large


@compiled
def _sizes(parts, count):
    sizes = np.zeros(count, np.int64)
    for part in parts.reshape(-1):
        sizes[part] += 1
    return sizes


def _markers(inner):
    """Labels of the solid cores in `inner`, a framed mask."""
    solid = cv2.morphologyEx(filled(inner), cv2.MORPH_OPEN, ELLIPSE)
    return _kept(*_components(solid))


def filled(framed: np.ndarray) -> np.ndarray:
    """The mask inside a frame of one zero pixel, holes filled; uint8 0/1. `framed` is used up."""
    cv2.floodFill(framed, None, (0, 0), OUTSIDE)
    return (framed[1:-1, 1:-1] != OUTSIDE).view(np.uint8)


@compiled
def _kept(parts, large):
    """`parts` without the small ones."""
    flat = parts.reshape(-1)
    for i in range(flat.size):
        if not large[flat[i]]:
            flat[i] = 0
    return parts


@compiled
def _inner(parts, large, edge):
    """Nucleus pixels that are no edge, framed by one pixel of background."""
    rows, columns = parts.shape
    inner = np.zeros((rows + 2, columns + 2), np.uint8)
    for r in range(rows):
        for c in range(columns):
            inner[r + 1, c + 1] = large[parts[r, c]] and edge[r, c] < EDGE
    return inner


@compiled
def _owners(parts, large, markers):
    """Per component the one marker on it, 0 without any (or too small), `SEVERAL` with more."""
    owners = np.zeros(large.size, np.int32)
    flat, marker = parts.reshape(-1), markers.reshape(-1)
    for i in range(flat.size):
        if marker[i] > 0 and large[flat[i]] and owners[flat[i]] != marker[i]:
            owners[flat[i]] = marker[i] if owners[flat[i]] == 0 else SEVERAL
    return owners


@compiled
def _sown(parts, owners, markers):
    """Labels before the flood: only components with several markers have to be flooded."""
    labels = np.empty(parts.shape, np.int32)
    out, part, marker = labels.reshape(-1), parts.reshape(-1), markers.reshape(-1)
    for i in range(out.size):
        out[i] = owners[part[i]]
        if out[i] == SEVERAL:
            out[i] = marker[i] if marker[i] > 0 else OPEN
    return labels


def _heights(parts, large, owners, edge):
    """Smoothed opposite of the edges, int32, where `owners` says that it is needed.

    Edges are multiples of 2^-24 and the smoothing weighs in sixteenths: integers hold it exactly.
    """
    inside = _depths(parts, large, edge)
    framed = cv2.copyMakeBorder(inside, 1, 1, 1, 1, cv2.BORDER_REFLECT_101)
    return _smoothed(framed, parts, owners)


@compiled
def _depths(parts, large, edge):
    depths = np.zeros(parts.shape, np.int32)
    for r in range(parts.shape[0]):
        for c in range(parts.shape[1]):
            if large[parts[r, c]]:
                depths[r, c] = ONE - np.int32(max(edge[r, c], 0) * ONE)
    return depths


@compiled
def _smoothed(framed, parts, owners):
    heights = np.zeros(parts.shape, np.int32)
    for r in range(parts.shape[0]):
        for c in range(parts.shape[1]):
            if owners[parts[r, c]] == SEVERAL:
                sides = _weighed(framed, r, c) + _weighed(framed, r + 2, c)
                heights[r, c] = sides + 2 * _weighed(framed, r + 1, c)
    return heights


@compiled
def _weighed(plane, r, c):
    return plane[r, c] + 2 * plane[r, c + 1] + plane[r, c + 2]
