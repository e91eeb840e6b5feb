"""Which tiles cover an image, their pixels, and the resolution they are seen at."""

from __future__ import annotations

import dataclasses
import itertools

import cv2
import numpy as np
import numpy.typing as npt

from cellvit_jax.errors import InputError
from cellvit_jax.slides.limits import MAX_PIXELS
from cellvit_jax.slides.slide import Slide

RESOLUTION_TOLERANCE = 0.05


@dataclasses.dataclass(frozen=True)
class Tile:
    """A square that is read, and the rectangle inside it that it answers for.

    `row, col` is its first pixel in the image, negative where the image is smaller than the tile;
    `core` is ((r0, c0), (r1, c1)) in the image, end exclusive.
    """

    row: int
    col: int
    size: int
    core: tuple[tuple[int, int], tuple[int, int]]


def plan(size: tuple[int, int], tile: int, margin: int) -> list[Tile]:
    """Tiles of side `tile`, row by row, whose cores partition an image of `size` (height, width).

    Every core keeps `margin` pixels or more to its tile's edge, except where the image itself ends:
    no tile reaches beyond the image along an axis that is as long as a tile, and along a shorter
    one a single tile has the image in its middle.
    """
    if not 0 <= 2 * margin < tile:
        raise InputError(f"a margin of {margin} leaves nothing of a tile of {tile} pixels")
    rows, cols = (_intervals(n, tile, margin) for n in size)
    return [
        Tile(row, col, tile, ((r0, c0), (r1, c1)))
        for (row, r0, r1), (col, c0, c1) in itertools.product(rows, cols)
    ]


def _intervals(n: int, tile: int, margin: int) -> list[tuple[int, int, int]]:
    """(origin, first, end) of the tiles along an axis of `n` pixels, spread evenly."""
    if n <= tile:
        return [((n - tile) // 2, 0, n)]
    count = -(-(n - 2 * margin) // (tile - 2 * margin))
    origins = [i * (n - tile) // (count - 1) for i in range(count)]
    # cores meet in the middle of what two neighbours share
    cuts = [(a + tile + b) // 2 for a, b in itertools.pairwise(origins)]
    return list(zip(origins, [0, *cuts], [*cuts, n], strict=True))


def read_tile(slide: Slide, tile: Tile) -> npt.NDArray[np.uint8]:
    """The tile's pixels (size, size, 3); beyond the image they are its reflection."""
    rows, cols = (
        _reflect(np.arange(origin, origin + tile.size), n)
        for origin, n in zip((tile.row, tile.col), slide.size, strict=True)
    )
    top, left = int(rows.min()), int(cols.min())
    pixels = slide.read(top, left, int(rows.max()) + 1 - top, int(cols.max()) + 1 - left)
    return pixels[np.ix_(rows - top, cols - left)]


def _reflect(index: npt.NDArray[np.int64], n: int) -> npt.NDArray[np.int64]:
    """Mirrors indices at the first and the last of `n` pixels, which are not repeated."""
    period = max(2 * (n - 1), 1)
    index = index % period
    return np.minimum(index, period - index)


def resample_factor(mpp: float, model_mpp: float) -> float:
    """How much larger an image at `mpp` must become for the model; 1 within 5 % of it."""
    factor = mpp / model_mpp
    return factor if abs(factor - 1) > RESOLUTION_TOLERANCE else 1.0


def resample(image: npt.NDArray[np.uint8], factor: float) -> npt.NDArray[np.uint8]:
    """`image` (height, width, 3) enlarged by `factor`, or shrunk by one below 1.

    The centre of pixel x lies at (x + 0.5) / factor - 0.5 in `image`, on both axes: `factor` is
    exact, the far edge rounded. It is 1 or so far from 1 that the size of the image changes, as
    `resample_factor` gives it. Raises InputError for a result of no pixels or of too many.
    """
    if factor == 1:
        return image
    height, width = (n * factor for n in image.shape[:2])
    if min(height, width) <= 0.5 or height * width > MAX_PIXELS:
        raise InputError(
            f"at the model's resolution the image would be {width:,.0f} × {height:,.0f} pixels: "
            "check the µm per pixel it was given"
        )
    method = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    return cv2.resize(image, None, fx=factor, fy=factor, interpolation=method)
