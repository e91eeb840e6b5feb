"""Which cells are neighbours."""

from __future__ import annotations

import numpy as np
from scipy.spatial import Delaunay, KDTree, QhullError


def neighbours(
    points: np.ndarray, *, k: int | None = None, max_length: float = np.inf
) -> tuple[np.ndarray, np.ndarray]:
    """Edges (E, 2) int64 between rows of `points`, float (N, 2), and their lengths (E,) float64.

    By default those of the Delaunay triangulation; with `k`, from every point to its `k` nearest.
    None is longer than `max_length`, in units of the points. Every edge is there once, with the
    lower row first, in the order of rows. Points at the same place are joined.
    """
    points = np.asarray(points, np.float64).reshape(-1, 2)
    pairs = _delaunay(points) if k is None else _nearest(points, k)
    # one number an edge: sorted in less time and memory than rows
    numbers = np.unique(pairs.min(axis=1) * np.int64(len(points)) + pairs.max(axis=1))
    edges = np.stack(np.divmod(numbers, max(len(points), 1)), axis=1)
    lengths = np.linalg.norm(points[edges[:, 0]] - points[edges[:, 1]], axis=1)
    near = lengths <= max_length
    return edges[near], lengths[near]


def _delaunay(points):
    try:
        mesh = Delaunay(points)
    except (QhullError, ValueError):  # under three points, or all of them on a line
        return _along_a_line(points)
    sides = mesh.simplices[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2)
    # points that the triangulation left out, being where others are, and those nearest to them
    return np.concatenate([sides, mesh.coplanar[:, [0, 2]]])


def _along_a_line(points):
    order = np.lexsort(points.T)
    return np.stack([order[:-1], order[1:]], axis=1)


def _nearest(points, k):
    if not len(points):
        return np.zeros((0, 2), np.int64)
    # one more: a point is among its own nearest, unless hidden there by others at the same place
    _, found = KDTree(points).query(points, range(1, k + 2))
    rows = np.broadcast_to(np.arange(len(points))[:, None], found.shape)
    others = (found != rows) & (found < len(points))
    wanted = others & (np.cumsum(others, axis=1) <= k)
    return np.stack([rows[wanted], found[wanted]], axis=1)
