"""What cells are found in: network maps reduced to one value per pixel, of a tile or an image."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np

from cellvit_jax.cells.energy import edges
from cellvit_jax.cells.maps import checked

PIXELWISE = ("binary", "edge", "types", "probabilities", "haematoxylin")

Sides = tuple[Fraction, Fraction]  # height and width in pixels, which need not be whole


@dataclasses.dataclass(frozen=True, eq=False)
class Planes:
    """Nucleus pixels, edges and types of a tile or of a whole image.

    `binary` uint8 (H, W) of 0/1, `edge` float32 (H, W), `types` uint8 (H, W); where wanted,
    `probabilities` (H, W, C), floats or bytes in 255ths, `haematoxylin` float32 (H, W), its optical
    density, and `tokens` float32 (h, w, D), a grid of cells with the sides `token_sides`, of which
    the rows above row `first_token` of the image's grid are left out.
    """

    binary: np.ndarray
    edge: np.ndarray
    types: np.ndarray
    probabilities: np.ndarray | None = None
    haematoxylin: np.ndarray | None = None
    tokens: np.ndarray | None = None
    token_sides: Sides = (Fraction(1), Fraction(1))
    first_token: int = 0

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
        grid = edge.shape if tokens is None else tokens.shape
        sides = Fraction(edge.shape[0], grid[0]), Fraction(edge.shape[1], grid[1])
        return cls(**maps, edge=edge, token_sides=sides)

    def crop(self, r0: int, c0: int, r1: int, c1: int) -> Planes:
        """A rectangle of the planes; the token grid stays whole."""
        return self._pixelwise(lambda m: np.ascontiguousarray(m[r0:r1, c0:c1]))

    def _pixelwise(self, change: Callable[[np.ndarray], np.ndarray]) -> Planes:
        maps = {name: getattr(self, name) for name in PIXELWISE}
        changed: dict[str, Any] = {n: change(m) for n, m in maps.items() if m is not None}
        return dataclasses.replace(self, **changed)
