"""A made field: discs whose colour is their type, so that image, ids and types can be compared."""

import numpy as np

from cellvit_jax.data import Sample

COLORS = np.array([[240, 230, 240], [180, 40, 60], [40, 60, 180]], np.uint8)


def field(height: int = 96, width: int = 128, typed: bool = True) -> Sample:
    rows, columns = np.mgrid[:height, :width]
    instances = np.zeros((height, width), np.int32)
    types = np.zeros((height, width), np.uint8)
    centres = [(r, c) for r in range(12, height, 24) for c in range(12, width, 24)]
    for number, (row, column) in enumerate(centres, start=1):
        disc = (rows - row) ** 2 + (columns - column) ** 2 <= (4 + number % 5) ** 2
        instances[disc], types[disc] = number, 1 + number % 2
    return Sample("made", COLORS[types], instances, types if typed else None, tissue=3)


def aligned(sample: Sample) -> float:
    """Share of pixels whose colour, type and instance tell the same."""
    by_color = np.abs(sample.image[..., None, :].astype(int) - COLORS).sum(-1).argmin(-1)
    return ((by_color == sample.types) & ((sample.instances > 0) == (sample.types > 0))).mean()
