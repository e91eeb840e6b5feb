"""What cells are found in: network maps reduced to one value per pixel, of a tile or an image."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from cellvit_jax.cells.energy import edges
from cellvit_jax.cells.maps import checked

Core = tuple[tuple[int, int], tuple[int, int]]  # ((r0, c0), (r1, c1)), end exclusive
PIXELWISE = ("binary", "edge", "types", "probabilities")


@dataclasses.dataclass(frozen=True, eq=False)
class Planes:
    """Nucleus pixels, edges and types of a tile or of a whole image.

    `binary` uint8 (H, W) of 0/1, `edge` float32 (H, W), `types` uint8 (H, W); where wanted,
    `probabilities` float (H, W, C), and `tokens` float32 (h, w, D), a grid that spans `extent`
    (rows, columns) pixels.
    """

    binary: np.ndarray
    edge: np.ndarray
    types: np.ndarray
    probabilities: np.ndarray | None = None
    tokens: np.ndarray | None = None
    extent: tuple[int, int] = (0, 0)

    @classmethod
    def of(
        cls,
        binary: np.ndarray,
        hv: np.ndarray,
        types: np.ndarray,
        *,
        probabilities: np.ndarray | None = None,
        tokens: np.ndarray | None = None,
        normalise: str = "fixed",
    ) -> Planes:
        """The planes of one tile, from maps as `extract_cells` takes them, with its errors."""
        maps = checked(
            binary=binary, hv=hv, types=types, probabilities=probabilities, tokens=tokens
        )
        edge = edges(maps.pop("hv"), normalise)
        return cls(**maps, edge=edge, extent=edge.shape)

    @classmethod
    def blank(cls, height: int, width: int, like: Planes) -> Planes:
        """An image without nuclei, for tiles that are like the given one to be pasted into.

        Its token cells are as large as a tile's, which need not be whole pixels.
        """
        blank = like._pixelwise(lambda m: np.zeros((height, width, *m.shape[2:]), m.dtype))
        if like.tokens is None:
            return dataclasses.replace(blank, extent=(height, width))
        (h, rows), (w, columns) = (
            _token_grid(side, like.tokens.shape[axis], like.extent[axis])
            for axis, side in enumerate((height, width))
        )
        tokens = np.zeros((h, w, like.tokens.shape[2]), like.tokens.dtype)
        return dataclasses.replace(blank, tokens=tokens, extent=(rows, columns))

    def paste(self, tile: Planes, row: int, col: int, core: Core) -> None:
        """Copy the `core`, in pixels of this image, of a tile whose first pixel is (row, col).

        Cores that partition the image give every pixel one value, in whatever order they come. A
        token cell takes the token that lies under its centre.
        """
        (r0, c0), (r1, c1) = core
        for name in PIXELWISE:
            plane, source = getattr(self, name), getattr(tile, name)
            if plane is not None:
                plane[r0:r1, c0:c1] = source[r0 - row : r1 - row, c0 - col : c1 - col]
        if self.tokens is not None and tile.tokens is not None:
            rows, below = _tokens_under(self, tile, 0, row, r0, r1)
            columns, beside = _tokens_under(self, tile, 1, col, c0, c1)
            self.tokens[np.ix_(rows, columns)] = tile.tokens[np.ix_(below, beside)]

    def crop(self, r0: int, c0: int, r1: int, c1: int) -> Planes:
        """A rectangle of the planes; the token grid stays whole."""
        return self._pixelwise(lambda m: np.ascontiguousarray(m[r0:r1, c0:c1]))

    def _pixelwise(self, change: Callable[[np.ndarray], np.ndarray]) -> Planes:
        maps = {name: getattr(self, name) for name in PIXELWISE}
        changed: dict[str, Any] = {n: change(m) for n, m in maps.items() if m is not None}
        return dataclasses.replace(self, **changed)


def _token_grid(side, tokens, extent):
    """Token cells of a tile's size over at least `side` pixels: how many, over how many pixels."""
    common = math.gcd(tokens, extent)
    times = -(-side * common // extent)
    return times * tokens // common, times * extent // common


def _tokens_under(image, tile, axis, origin, start, end):
    """Token cells of the image with their centre in start..end; the tile's tokens under these."""
    count = image.tokens.shape[axis]
    centres = (2 * np.arange(count) + 1) * image.extent[axis] // (2 * count)
    centres = np.minimum(centres, image.binary.shape[axis] - 1)
    cells = np.flatnonzero((centres >= start) & (centres < end))
    return cells, (centres[cells] - origin) * tile.tokens.shape[axis] // tile.extent[axis]
