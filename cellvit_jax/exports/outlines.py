"""Contours through pixel centres <-> closed, corner-based polygons.

In an image whose pixel (0, 0) covers the square from (0, 0) to (1, 1), as QuPath and GIS tools see
it, the centre of that pixel is at (0.5, 0.5).
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import shapely

CENTRE = 0.5
CONTOUR = pa.list_(pa.list_(pa.float32(), 2))


def split(contours: pa.ListArray) -> tuple[np.ndarray, np.ndarray]:
    """The points of all contours, (P, 2) float32, and where each begins, (N + 1,) int64."""
    starts = np.concatenate([[0], np.cumsum(contours.value_lengths().to_numpy())])
    return contours.flatten().flatten().to_numpy().reshape(-1, 2), starts.astype(np.int64)


def rings(contours: pa.ListArray) -> tuple[np.ndarray, np.ndarray]:
    """Closed corner-based rings, as `split` gives contours but float64."""
    points, starts = split(contours)
    ring_starts = starts + np.arange(len(starts))
    source = np.arange(ring_starts[-1]) - np.repeat(np.arange(len(contours)), np.diff(ring_starts))
    source[ring_starts[1:] - 1] = starts[:-1]
    return points[source].astype(np.float64) + CENTRE, ring_starts


def polygons(points: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """A shapely polygon for each of the closed `rings`, (N,) object."""
    return shapely.from_ragged_array(
        shapely.GeometryType.POLYGON, points, (starts, np.arange(len(starts)))
    )


def contours(polygons: np.ndarray) -> pa.ListArray:
    """The contours whose `rings` these polygons are."""
    if not len(polygons):
        return pa.array([], CONTOUR)
    _, points, (ring_starts, _) = shapely.to_ragged_array(polygons)
    opened = np.delete(points, ring_starts[1:] - 1, axis=0) - CENTRE
    starts = ring_starts - np.arange(len(ring_starts))
    values = pa.FixedSizeListArray.from_arrays(pa.array(opened.astype(np.float32).ravel()), 2)
    return pa.ListArray.from_arrays(pa.array(starts, pa.int32()), values)


def valid_polygons(contours: pa.ListArray) -> np.ndarray:
    """The `polygons` of the contours' `rings`, repaired where they touch themselves."""
    found = polygons(*rings(contours))
    invalid = ~shapely.is_valid(found)
    found[invalid] = repair(found[invalid])
    return found


def repair(invalid: np.ndarray) -> np.ndarray:
    """Valid (multi)polygons for self-touching ones; what has no area gets its pixels' width."""
    valid = shapely.make_valid(invalid, method="structure", keep_collapsed=False)
    thin = shapely.buffer(invalid, CENTRE, quad_segs=2)
    return np.where(shapely.is_empty(valid), thin, valid)
