"""Edges between nuclei: where the horizontal and vertical distances fall steeply."""

from __future__ import annotations

from collections.abc import Callable
from math import comb

import cv2
import numpy as np

from cellvit_jax.cells.compiled import compiled
from cellvit_jax.errors import InputError

RADIUS = 10  # of the Sobel kernels
SMOOTH = np.array([comb(20, k) for k in range(21)], np.float64)
DERIVE = np.diff([0, *(comb(19, k) for k in range(20)), 0])[::-1].astype(np.float64)
# The answer to a step from 0 to 1: the smoothing half sums to 2^20, the derivative half, a
# difference of binomials of order 19, to at most C(19, 9).
FULL_STEP = 2.0**20 * comb(19, 9)
# In such steps: the deepest fall (two nuclei that touch along a straight border give -1) and the
# steepest rise (inside a small nucleus) of a typical tile, in place of the tile's own extremes.
# Markers being edges under 0.4, they are where neither distance falls by more than 0.03: the flat
# middle of a large nucleus marks it too. Chosen on training fields, never on validation ones.
FIXED_LOWER, FIXED_UPPER = -0.75, 0.45


def edges(hv: np.ndarray, normalise: str = "tile") -> np.ndarray:
    """Edge strength per pixel, float32 (H, W) in [0, 1], from `hv` float32 (H, W, 2), x then y.

    `normalise="tile"` stretches distances and slopes between the extremes of this very tile, as
    HoVer-Net does: exact, but a pixel's edge then hangs on everything else in the tile.
    `normalise="fixed"` takes distances to span -1..1 and slopes `FIXED_LOWER`..`FIXED_UPPER` full
    steps: a pixel's edge depends on nothing further than `RADIUS` pixels away.
    """
    if normalise not in STRENGTH:
        raise InputError(f"normalise must be one of {list(STRENGTH)}, not {normalise!r}")
    strength = STRENGTH[normalise]
    x, y = cv2.split(hv)
    edge = strength(x, SMOOTH, DERIVE)
    return np.maximum(edge, strength(y, DERIVE, SMOOTH), out=edge)


def _by_tile(distance: np.ndarray, down: np.ndarray, across: np.ndarray) -> np.ndarray:
    rise = _stretched(_slope(_stretched(distance), down, across))
    return np.subtract(1, rise, out=rise)


def _by_constants(distance: np.ndarray, down: np.ndarray, across: np.ndarray) -> np.ndarray:
    slope = _slope(np.clip((distance + 1) / 2, 0, 1), down, across)
    rise = np.empty_like(distance)
    _share(slope, FIXED_LOWER * FULL_STEP, FIXED_UPPER * FULL_STEP, rise)
    return np.subtract(1, rise, out=rise)


STRENGTH: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]] = {
    "tile": _by_tile,
    "fixed": _by_constants,
}


def _stretched(plane: np.ndarray) -> np.ndarray:
    return cv2.normalize(plane, None, 0, 1, cv2.NORM_MINMAX, cv2.CV_32F)


def _slope(distance: np.ndarray, down: np.ndarray, across: np.ndarray) -> np.ndarray:
    padded = cv2.copyMakeBorder(distance, RADIUS, RADIUS, RADIUS, RADIUS, cv2.BORDER_REFLECT_101)
    slope = np.empty(distance.shape)
    _correlate(padded, down, across, slope)
    return slope


@compiled
def _correlate(padded, down, across, out):
    """OpenCV's Sobel of this size, to rounding, at a third of its time."""
    line = np.empty(padded.shape[1])
    for r in range(len(out)):
        line[:] = 0
        out[r] = 0
        for k in range(0, down.size, 3):
            _add(line, down[k:], padded[r + k], padded[r + k + 1], padded[r + k + 2])
        for k in range(0, across.size, 3):
            _add(out[r], across[k:], line[k:], line[k + 1 :], line[k + 2 :])


@compiled
def _add(total, weights, a, b, c):
    """Three taps at a time: memory, not arithmetic, is what takes the time."""
    for i in range(total.size):
        total[i] += weights[0] * a[i] + weights[1] * b[i] + weights[2] * c[i]


@compiled
def _share(plane, low, high, out):
    """How far `plane` is on the way from `low` to `high`, 0 below and 1 above."""
    for r in range(plane.shape[0]):
        for c in range(plane.shape[1]):
            out[r, c] = min(max((plane[r, c] - low) / (high - low), 0.0), 1.0)
