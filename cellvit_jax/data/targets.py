"""What a network is trained to predict, computed from an instance map."""

from __future__ import annotations

import numpy as np


def hv_map(instances: np.ndarray) -> np.ndarray:
    """Horizontal and vertical distances of pixels from their nucleus' centre (HoVer-Net).

    `instances` is (H, W) integer, 0 = background. Returns (H, W, 2) float32, x then y: per
    nucleus the offset from the rounded centre plus 1 (the published targets have that shift),
    with negative and positive sides each scaled to reach ±1; 0 outside of nuclei.
    """
    hv = np.zeros((*instances.shape, 2), np.float32)
    rows, columns = np.nonzero(instances)
    if rows.size:
        _, label = np.unique(instances[rows, columns], return_inverse=True)
        hv[rows, columns, 0] = _normalised_offsets(columns, label)
        hv[rows, columns, 1] = _normalised_offsets(rows, label)
    return hv


def _normalised_offsets(position: np.ndarray, label: np.ndarray) -> np.ndarray:
    count = np.bincount(label)
    centre = np.floor(np.bincount(label, position) / count + 0.5).astype(np.int64)
    low, high = np.full(len(count), 2**31), np.full(len(count), -1)
    np.minimum.at(low, label, position)
    np.maximum.at(high, label, position)
    offset = (position - centre[label] + 1).astype(np.float32)
    below = (centre - 1 - low).astype(np.float32)[label]
    above = (high - centre + 1).astype(np.float32)[label]
    scale = np.where(offset < 0, below, above)
    return np.divide(offset, scale, out=offset, where=offset != 0)


def regression_map(instances: np.ndarray) -> np.ndarray:
    """Distance (x, y) in pixels of nucleus pixels to their centre of mass: (H, W, 2) float32."""
    out = np.zeros((*instances.shape, 2), np.float32)
    rows, columns = np.nonzero(instances)
    if rows.size:
        _, label = np.unique(instances[rows, columns], return_inverse=True)
        count = np.bincount(label)
        for channel, position in enumerate((columns, rows)):
            centre = np.bincount(label, position) / count
            out[rows, columns, channel] = position - centre[label]
    return out
