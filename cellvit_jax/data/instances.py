"""Instance maps: telling pieces apart, and types of instances to types of pixels."""

from __future__ import annotations

import numpy as np

from cellvit_jax.cells.compiled import compiled


def separated(instances: np.ndarray) -> np.ndarray:
    """Every 8-connected piece of an instance as one of its own, ids 1, 2, … in raster order.

    A crop or a warp can leave a nucleus in two pieces, and a mirrored border doubles one: their
    common centre would lie in neither. (H,W) integer → (H,W) int32.
    """
    out = np.zeros(instances.shape, np.int32)
    _separate(np.ascontiguousarray(instances), out, np.empty((out.size, 2), np.int32))
    return out


@compiled
def _separate(instances, out, stack):
    height, width = instances.shape
    count = 0
    for row in range(height):
        for column in range(width):
            if instances[row, column] == 0 or out[row, column] != 0:
                continue
            count += 1
            _fill(instances, out, stack, row, column, count)


@compiled
def _fill(instances, out, stack, row, column, count):
    height, width = instances.shape
    out[row, column] = count
    stack[0, 0], stack[0, 1], waiting = row, column, 1
    while waiting > 0:
        waiting -= 1
        r, c = stack[waiting]
        for y in range(max(0, r - 1), min(height, r + 2)):
            for x in range(max(0, c - 1), min(width, c + 2)):
                if out[y, x] == 0 and instances[y, x] == instances[r, c]:
                    out[y, x] = count
                    stack[waiting, 0], stack[waiting, 1] = y, x
                    waiting += 1


def type_map(instances: np.ndarray, ids: np.ndarray, types: np.ndarray) -> np.ndarray:
    """Types of pixels from types of instances: (H,W) integer → (H,W) uint8.

    `types[i]` is the type of the instance with id `ids[i]`; instances that are not listed, and the
    background, are 0.
    """
    ids = np.asarray(ids)
    table = np.zeros(max(instances.max(initial=0), ids.max(initial=0)) + 1, np.uint8)
    table[ids] = types
    table[0] = 0
    return table[instances]
