"""The instance map as a label image that ImageJ, QuPath, napari and scikit-image open."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import tifffile

from cellvit_jax.errors import InputError
from cellvit_jax.files import atomic_open

_MICRONS_PER_CM = 10_000


def write(instances: np.ndarray, path: str | os.PathLike[str], *, mpp: float | None = None) -> None:
    """Write an (H, W) integer map, 0 = background, as a zlib-compressed uint32 TIFF.

    `mpp` (µm per pixel) becomes the resolution tags. Raises InputError for what is no such map,
    OutputError where the file cannot be written.
    """
    instances = np.asarray(instances)
    if instances.ndim != 2 or instances.dtype.kind not in "iu" or instances.min(initial=0) < 0:
        raise InputError(
            "a label image is written from a two-dimensional array of integers from 0 up, not from "
            f"{instances.dtype} of shape {instances.shape}"
        )
    resolution: dict[str, Any] = {}
    if mpp:
        per_cm = _MICRONS_PER_CM / mpp
        resolution = {"resolution": (per_cm, per_cm), "resolutionunit": "CENTIMETER"}
    with atomic_open(path) as file:
        tifffile.imwrite(
            file,
            instances.astype(np.uint32, copy=False),
            compression="zlib",
            photometric="minisblack",
            metadata=None,
            **resolution,
        )
