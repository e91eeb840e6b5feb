"""What the network's maps of one tile must look like."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from cellvit_jax.errors import InputError

MIN_SIDE = 16
# name: kinds of dtype, in words, dtype inside, shape
MAPS = {
    "binary": ("bui", "integers", np.uint8, "(H, W)"),
    "hv": ("f", "floats", np.float32, "(H, W, 2)"),
    "types": ("ui", "integers", np.uint8, "(H, W)"),
    "probabilities": ("fu", "floats or bytes", None, "(H, W, C)"),
    "tokens": ("f", "floats", np.float32, "(h, w, D)"),
}
HIGHEST = {"binary": 1, "types": 255}


def checked(**maps: np.ndarray | None) -> dict[str, Any]:
    """The maps as contiguous arrays of the dtype used inside; absent ones stay None.

    Raises `InputError` if `hv`, `types`, ... do not fit `binary`, or hold what they cannot.
    """
    arrays: dict[str, Any] = {
        name: _array(name, a) if a is not None else None for name, a in maps.items()
    }
    size = arrays["binary"].shape
    if min(size) < MIN_SIDE:
        raise InputError(f"maps must be at least {MIN_SIDE}x{MIN_SIDE} pixels, not {size}")
    for name, array in arrays.items():
        if array is not None:
            _check_shape(name, array.shape, size)
    finite, _ = cv2.checkRange(arrays["hv"])
    if not finite:
        raise InputError("hv holds NaN or infinite distances: the network's output is broken")
    return arrays


def _array(name, values):
    kinds, words, dtype, shape = MAPS[name]
    array = np.asarray(values)
    if array.ndim != shape.count(",") + 1:
        raise InputError(f"{name} must have the shape {shape}, not {array.shape}")
    if array.dtype.kind not in kinds:
        raise InputError(f"{name} must hold {words}, not {array.dtype}")
    if name in HIGHEST and array.size and not 0 <= array.min() <= array.max() <= HIGHEST[name]:
        raise InputError(f"{name} must lie in 0..{HIGHEST[name]}, not {array.min()}..{array.max()}")
    return np.ascontiguousarray(array, dtype)


def _check_shape(name, shape, size):
    if name == "tokens":
        if not all(0 < cells <= pixels for cells, pixels in zip(shape[:2], size, strict=True)):
            raise InputError(f"tokens of shape {shape} are no grid over a tile of {size} pixels")
    elif shape[:2] != size or (name == "hv" and shape[2] != 2):
        raise InputError(f"{name} must have the shape {MAPS[name][3]} for {size}, not {shape}")
