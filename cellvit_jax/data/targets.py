"""What a network is trained to predict, computed from an instance map."""

from __future__ import annotations

import numpy as np

from cellvit_jax.cells.compiled import compiled


def hv_map(instances: np.ndarray) -> np.ndarray:
    """Horizontal and vertical distances of pixels from their nucleus' centre (HoVer-Net).

    `instances` is (H, W) integer, 0 = background. Returns (H, W, 2) float32, x then y: per
    nucleus the offset from the rounded centre plus 1 (the published targets have that shift),
    with negative and positive sides each scaled to reach ±1; 0 outside of nuclei.
    """
    labels, table = _numbered(instances)
    sums, low, high = _extents(labels, table)
    # where the distance is 0: the shift of 1 lies in here
    middle = np.floor(_means(sums) + 0.5).astype(np.int64) - 1
    out = np.zeros((*labels.shape, 2), np.float32)
    _write_normalised(labels, middle, middle - low, high - middle, out)
    return out


def regression_map(instances: np.ndarray) -> np.ndarray:
    """Distance (x, y) in pixels of nucleus pixels to their centre of mass: (H, W, 2) float32."""
    labels, table = _numbered(instances)
    sums, _, _ = _extents(labels, table)
    out = np.zeros((*labels.shape, 2), np.float32)
    _write_distances(labels, _means(sums), out)
    return out


def _numbered(instances: np.ndarray) -> tuple[np.ndarray, int]:
    """The map as int32 with ids that may index a table, and that table's length."""
    highest = int(instances.max(initial=0))
    if highest > instances.size or instances.min(initial=0) < 0:
        ids, numbers = np.unique(instances, return_inverse=True)
        instances = np.where(instances == 0, 0, numbers.reshape(instances.shape) + 1)
        highest = len(ids)
    return np.ascontiguousarray(instances, np.int32), highest + 1


def _means(sums: np.ndarray) -> np.ndarray:
    return sums[:, 1:] / np.maximum(sums[:, :1], 1)


@compiled
def _extents(labels, table):
    """By id: pixels and sums of x and y; smallest x and y; largest x and y."""
    sums = np.zeros((table, 3), np.int64)
    low, high = np.full((table, 2), 2**31), np.full((table, 2), -1)
    for y in range(labels.shape[0]):
        for x in range(labels.shape[1]):
            label = labels[y, x]
            if label != 0:
                sums[label, 0] += 1
                sums[label, 1] += x
                sums[label, 2] += y
                low[label, 0] = min(low[label, 0], x)
                low[label, 1] = min(low[label, 1], y)
                high[label, 0] = max(high[label, 0], x)
                high[label, 1] = max(high[label, 1], y)
    return sums, low, high


@compiled
def _write_normalised(labels, middle, below, above, out):
    for y in range(labels.shape[0]):
        for x in range(labels.shape[1]):
            label = labels[y, x]
            if label != 0:
                out[y, x, 0] = _share(x - middle[label, 0], below[label, 0], above[label, 0])
                out[y, x, 1] = _share(y - middle[label, 1], below[label, 1], above[label, 1])


@compiled
def _share(offset, below, above):
    if offset == 0:
        return np.float32(0)
    return np.float32(offset) / np.float32(below if offset < 0 else above)


@compiled
def _write_distances(labels, centre, out):
    for y in range(labels.shape[0]):
        for x in range(labels.shape[1]):
            label = labels[y, x]
            if label != 0:
                out[y, x, 0] = x - centre[label, 0]
                out[y, x, 1] = y - centre[label, 1]
