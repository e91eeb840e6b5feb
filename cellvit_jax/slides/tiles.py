"""Which tiles cover an image, and their pixels."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Protocol

import numpy as np
import numpy.typing as npt

from cellvit_jax.errors import InputError

Interval = tuple[int, int, int]  # where a tile begins, where its core begins, where that ends


class View(Protocol):
    """Pixels that are read by the rectangle: a slide, or one at another resolution."""

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""

    def read(self, row: int, col: int, height: int, width: int) -> npt.NDArray[np.uint8]:
        """RGB pixels (height, width, 3) of a rectangle inside."""


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


@dataclasses.dataclass(frozen=True)
class Grid:
    """Tiles of side `tile` in rows and columns, whose cores partition an image."""

    tile: int
    rows: tuple[Interval, ...]
    cols: tuple[Interval, ...]

    def __getitem__(self, place: tuple[int, int]) -> Tile:
        """The tile in that row and column of the grid."""
        (row, r0, r1), (col, c0, c1) = self.rows[place[0]], self.cols[place[1]]
        return Tile(row, col, self.tile, ((r0, c0), (r1, c1)))

    @property
    def shape(self) -> tuple[int, int]:
        """How many rows and columns there are."""
        return len(self.rows), len(self.cols)


def grid(size: tuple[int, int], tile: int, margin: int) -> Grid:
    """The tiles of an image of `size` (height, width).

    Every core keeps `margin` pixels or more to its tile's edge, except where the image itself ends:
    no tile reaches beyond the image along an axis that is as long as a tile, and along a shorter
    one a single tile has the image in its middle.
    """
    if not 0 <= 2 * margin < tile:
        raise InputError(f"a margin of {margin} leaves nothing of a tile of {tile} pixels")
    rows, cols = (tuple(_intervals(n, tile, margin)) for n in size)
    return Grid(tile, rows, cols)


def plan(size: tuple[int, int], tile: int, margin: int) -> list[Tile]:
    """The tiles of `grid`, row by row."""
    tiles = grid(size, tile, margin)
    return [tiles[place] for place in np.ndindex(tiles.shape)]


def _intervals(n: int, tile: int, margin: int) -> list[tuple[int, int, int]]:
    """(origin, first, end) of the tiles along an axis of `n` pixels, spread evenly."""
    if n <= tile:
        return [((n - tile) // 2, 0, n)]
    count = -(-(n - 2 * margin) // (tile - 2 * margin))
    origins = [i * (n - tile) // (count - 1) for i in range(count)]
    # cores meet in the middle of what two neighbours share
    cuts = [(a + tile + b) // 2 for a, b in itertools.pairwise(origins)]
    return list(zip(origins, [0, *cuts], [*cuts, n], strict=True))


def read_tile(view: View, tile: Tile) -> npt.NDArray[np.uint8]:
    """The tile's pixels (size, size, 3); beyond the image they are its reflection."""
    rows, cols = (
        _reflect(np.arange(origin, origin + tile.size), n)
        for origin, n in zip((tile.row, tile.col), view.size, strict=True)
    )
    top, left = int(rows.min()), int(cols.min())
    pixels = view.read(top, left, int(rows.max()) + 1 - top, int(cols.max()) + 1 - left)
    if (top, left) == (tile.row, tile.col) and pixels.shape[:2] == (tile.size, tile.size):
        return pixels  # nothing is reflected
    return pixels[np.ix_(rows - top, cols - left)]


def _reflect(index: npt.NDArray[np.int64], n: int) -> npt.NDArray[np.int64]:
    """Mirrors indices at the first and the last of `n` pixels, which are not repeated."""
    period = max(2 * (n - 1), 1)
    index = index % period
    return np.minimum(index, period - index)
