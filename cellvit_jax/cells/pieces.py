"""Planes of a rectangle of an image with nothing but its nucleus pixels: a fifth of the memory."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from cellvit_jax.cells.compiled import compiled
from cellvit_jax.cells.planes import Planes, Sides

Box = tuple[int, int, int, int]  # r0, c0, r1, c1, end exclusive
VALUES = ("edge", "types", "probabilities", "haematoxylin")  # of a nucleus pixel


@dataclasses.dataclass(frozen=True, eq=False)
class Piece:
    """The nucleus pixels of a rectangle whose first pixel is (row, col) of the image.

    `mask` uint8 (h, w) of 0/1 says where they are; `edge` float32 (N,), `types` uint8 (N,) and,
    where wanted, `probabilities` (N, C) and `haematoxylin` float32 (N,) are their values in raster
    order. Pixels of `context` are there for the sake of their neighbours: the cells they belong to
    were found before.
    """

    row: int
    col: int
    mask: np.ndarray
    edge: np.ndarray
    types: np.ndarray
    probabilities: np.ndarray | None = None
    haematoxylin: np.ndarray | None = None
    context: bool = False

    @classmethod
    def of(cls, planes: Planes, row: int = 0, col: int = 0) -> Piece:
        """The nucleus pixels of `planes`, whose first pixel is (row, col) of the image."""
        inside = planes.binary > 0
        return cls(row, col, inside.view(np.uint8), **_chosen(planes, inside))

    @property
    def box(self) -> Box:
        """Its rectangle."""
        height, width = self.mask.shape
        return self.row, self.col, self.row + height, self.col + width

    def keep(self, wanted: np.ndarray, *, context: bool = False) -> Piece | None:
        """The piece with only its pixels in `wanted` (h, w), in as few rows as hold them."""
        mask = ((self.mask > 0) & (wanted > 0)).view(np.uint8)
        rows = np.flatnonzero(mask.any(1))
        if not len(rows):
            return None
        row = self.row + int(rows[0])
        values = _chosen(self, mask[self.mask > 0] > 0)
        return Piece(row, self.col, mask[rows[0] : rows[-1] + 1].copy(), **values, context=context)

    @functools.cached_property
    def starts(self) -> np.ndarray:
        """Where the values of each row begin, (h + 1,)."""
        return np.concatenate([[0], np.cumsum(self.mask.sum(1, dtype=np.int64))])

    def paste(self, planes: Planes, row: int, col: int) -> None:
        """Put the pixels that lie there into `planes`, whose first pixel is (row, col)."""
        _scatter(
            self.mask,
            self.starts,
            (self.edge, self.types, _bytes(self.probabilities), _bytes(self.haematoxylin)),
            (self.row - row, self.col - col),
            (
                planes.edge,
                planes.types,
                _bytes(planes.probabilities, 3),
                _bytes(planes.haematoxylin, 3),
            ),
        )


def _chosen(source: Piece | Planes, wanted: np.ndarray) -> dict[str, Any]:
    """Of what a piece or planes say of pixels, that of those which are `wanted`."""
    values = {name: getattr(source, name) for name in VALUES}
    return {name: array[wanted] for name, array in values.items() if array is not None}


@dataclasses.dataclass(frozen=True, eq=False)
class Tokens:
    """Rows of an image's grid of tokens (h, w, D), from the `first` on; `sides` of its cells."""

    grid: np.ndarray
    sides: Sides
    first: int = 0

    @classmethod
    def joined(cls, upper: Tokens | None, lower: Tokens | None) -> Tokens | None:
        """One grid of two that adjoin."""
        if upper is None or lower is None:
            return upper or lower
        return cls(np.concatenate([upper.grid, lower.grid]), upper.sides, upper.first)

    def below(self, row: int) -> Tokens | None:
        """The grid from that row of pixels on, None if nothing is left."""
        skipped = max(0, row // self.sides[0] - self.first)
        if skipped >= len(self.grid):
            return None
        return Tokens(self.grid[skipped:].copy(), self.sides, self.first + skipped)


def planes_of(
    pieces: Sequence[Piece], boxes: np.ndarray, box: Box, tokens: Tokens | None = None
) -> Planes:
    """Dense planes of a `box`, blank where no piece has a pixel; `boxes` (N, 4) of the pieces.

    `binary` is left blank: which pixels count is for the caller to say.
    """
    shape = box[2] - box[0], box[3] - box[1]
    planes = Planes(
        np.zeros(shape, np.uint8),
        np.zeros(shape, np.float32),
        np.zeros(shape, np.uint8),
        _blank(pieces, "probabilities", shape),
        _blank(pieces, "haematoxylin", shape),
    )
    if tokens:
        planes = dataclasses.replace(
            planes, tokens=tokens.grid, token_sides=tokens.sides, first_token=tokens.first
        )
    touched = (boxes[:, :2] < box[2:]).all(1) & (boxes[:, 2:] > box[:2]).all(1)
    for i in np.flatnonzero(touched).tolist():
        pieces[i].paste(planes, *box[:2])
    return planes


def _blank(pieces, name, shape):
    like = getattr(pieces[0], name) if pieces else None
    return None if like is None else np.zeros((*shape, *like.shape[1:]), like.dtype)


def _bytes(values, dimensions=2):
    """Values or vectors of any dtype as bytes, which is all that is needed to move them."""
    if values is None:
        return np.zeros((0,) * dimensions, np.uint8)
    if values.ndim < dimensions:
        values = values[..., None]
    return values.view(np.uint8)


@compiled
def _scatter(mask, starts, values, at, planes):
    """Lay the values of a mask's pixels over planes in which its first pixel is `at`."""
    edge, types, vectors, densities = values
    edges, kinds, fields, stains = planes
    row, col = at
    height, width = edges.shape
    for r in range(max(0, -row), min(mask.shape[0], height - row)):
        k = starts[r]
        for c in range(min(mask.shape[1], width - col)):
            if mask[r, c]:
                if c + col >= 0:
                    edges[r + row, c + col] = edge[k]
                    kinds[r + row, c + col] = types[k]
                    for b in range(vectors.shape[1]):
                        fields[r + row, c + col, b] = vectors[k, b]
                    for b in range(densities.shape[1]):
                        stains[r + row, c + col, b] = densities[k, b]
                k += 1
