"""What of a slide is looked at, at which resolution, in which tiles."""

from __future__ import annotations

import dataclasses
import warnings

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cellvit_jax.card import ModelCard
from cellvit_jax.errors import InputError
from cellvit_jax.slides import Grid, ImageSlide, Resampled, Slide, grid, resample_factor, tissue
from cellvit_jax.slides.resampled import overview
from cellvit_jax.slides.slide import Box
from cellvit_jax.stains import Staining, restained, staining

MARGIN = 8  # a tile keeps an eighth of its side as context on every side of its core
ASSUMED_MPP = 0.25
OVERVIEW = 2048  # pixels of the longer side in which the stains of a slide are looked for


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """A slide, its µm per pixel, the `view` that the model has of it, and the tiles of that.

    `wanted` (rows, columns) says which tiles of the grid are looked at; of cells count those with a
    centroid in the mask, if that is sharp, and in `roi`, a box in level-0 pixels. `staining` is
    the slide's own where the model is to be shown the reference's.
    """

    slide: Slide
    mpp: float
    view: Resampled
    grid: Grid
    mask: tissue.Mask
    wanted: npt.NDArray[np.bool_]
    roi: Box | None = None
    staining: Staining | None = None

    def shown(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Pixels of the view (…,3) in the colours that the model was trained on."""
        return restained(pixels, self.staining)

    @property
    def places(self) -> npt.NDArray[np.int64]:
        """Row and column in the grid of every wanted tile, row by row, (N, 2)."""
        return np.argwhere(self.wanted)

    @property
    def square_mm(self) -> float:
        """The area of the wanted tiles' cores."""
        heights, widths = (
            np.array([end - first for _, first, end in spans])
            for spans in (self.grid.rows, self.grid.cols)
        )
        pixels = (self.wanted * heights[:, None] * widths).sum()
        return float(pixels * (self.mpp / self.view.factor / 1000) ** 2)

    def counted(self, table: pa.Table) -> pa.Table:
        """Of a table of cells, in the view's pixels, those that lie where we look."""
        x, y = (
            (table[f"centroid_{axis}"].to_numpy() + 0.5) / self.view.factor - 0.5 for axis in "xy"
        )
        inside = np.ones(len(x), bool)
        if self.mask.sharp:
            inside &= self.mask.holds(x, y)
        if self.roi:
            r0, c0, r1, c1 = self.roi
            inside &= (y >= r0 - 0.5) & (y < r1 - 0.5) & (x >= c0 - 0.5) & (x < c1 - 0.5)
        return table if inside.all() else table.filter(inside)


def planned(
    slide: Slide,
    card: ModelCard,
    *,
    tile: int | None = None,
    where: str | None = None,
    roi: Box | None = None,
    margin: int | None = None,
) -> Plan:
    """The plan for a slide and a model. Raises InputError.

    `where` is "otsu" (the default for whole slides), "none" (the default for plain images, all of
    which is looked at) or the path of a mask; see `tissue.find`. `tile` is the side of the tiles,
    by default the card's, `margin` what they share with their neighbours, by default an eighth.
    """
    mpp = known_mpp(slide)
    view = Resampled(slide, resample_factor(mpp, card.mpp))
    side = tile or card.tile
    tiles = grid(view.size, side, side // MARGIN if margin is None else margin)
    plain = isinstance(slide, ImageSlide)
    mask = tissue.find(slide, mpp, where or (tissue.NONE if plain else tissue.OTSU), roi)
    own = _staining(slide) if card.stain else None
    return Plan(slide, mpp, view, tiles, mask, mask.tiles(tiles, view.factor), roi, own)


def _staining(slide: Slide) -> Staining | None:
    return staining(overview(slide, min(1.0, OVERVIEW / max(slide.size))))


def known_mpp(slide: Slide) -> float:
    """µm per pixel; for a plain image that does not say it an assumption, with a warning.

    Raises InputError for a whole slide that does not say it.
    """
    if slide.mpp is not None:
        return slide.mpp
    if not isinstance(slide, ImageSlide):
        raise InputError(
            f"{slide.name} does not say its resolution: give it with --mpp (µm per pixel, about "
            "0.25 for 40×, 0.5 for 20×)"
        )
    warnings.warn(
        f"{slide.name} does not say its resolution: taken as {ASSUMED_MPP} µm per pixel (40×); "
        "give mpp if that is wrong",
        stacklevel=2,
    )
    return ASSUMED_MPP
