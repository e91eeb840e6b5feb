"""Where on a slide to look: tissue, a user's mask, or a rectangle."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import orjson
from PIL import Image

from cellvit_jax.errors import InputError
from cellvit_jax.slides.resampled import overview
from cellvit_jax.slides.slide import Box, Slide
from cellvit_jax.slides.tiles import Grid

OTSU, NONE = "otsu", "none"
MPP, LONGEST = 4.0, 4096  # a mask has pixels of 4 µm, or larger ones so that it has no more than so
# Colour, max(R, G, B) - min(R, G, B), of which tissue has more: where Otsu's limit lies outside of
# these, the slide has tissue or glass alone.
PALEST, STRONGEST = 10, 24
SPECK = 2000.0  # µm² of tissue that is not looked at
RIM = 32.0  # µm around tissue that are looked at too


@dataclasses.dataclass(frozen=True, eq=False)
class Mask:
    """Which pixels of an overview, `factor` times as large as the slide, are looked at.

    `sharp` ones, which people drew, bound the cells; others only choose tiles.
    """

    pixels: npt.NDArray[np.bool_]
    factor: float
    sharp: bool = False

    @property
    def share(self) -> float:
        """The part of the slide that is looked at."""
        return float(self.pixels.mean())

    def tiles(self, grid: Grid, factor: float) -> npt.NDArray[np.bool_]:
        """Whether the core of each tile has a pixel of it, for a view `factor` times the slide."""
        scale = self.factor / factor
        total = np.pad(np.cumsum(np.cumsum(self.pixels, 0, np.int64), 1), ((1, 0), (1, 0)))
        (r0, r1), (c0, c1) = (
            _span(intervals, scale, n)
            for intervals, n in zip((grid.rows, grid.cols), self.pixels.shape, strict=True)
        )
        below, above = (total[np.ix_(r, c1)] - total[np.ix_(r, c0)] for r in (r1, r0))
        return below - above > 0

    def holds(self, x: np.ndarray, y: np.ndarray) -> npt.NDArray[np.bool_]:
        """Whether level-0 points, in pixel-centre coordinates, lie in it."""
        rows, cols = (
            np.clip(np.floor((values + 0.5) * self.factor).astype(int), 0, n - 1)
            for values, n in zip((y, x), self.pixels.shape, strict=True)
        )
        return self.pixels[rows, cols]


def _span(intervals, scale, n):
    cores = np.array([(first, end) for _, first, end in intervals]) * scale
    first = np.minimum(np.floor(cores[:, 0]).astype(int), n - 1)
    return first, np.maximum(np.minimum(np.ceil(cores[:, 1]).astype(int), n), first + 1)


def find(slide: Slide, mpp: float, tissue: str, roi: Box | None = None) -> Mask:
    """The mask of a slide: "otsu", "none" (all of it), or the path of a user's PNG or GeoJSON.

    A PNG covers the whole slide, whatever its size, and is looked at where it is not black. A
    GeoJSON has polygons in level-0 pixels, as QuPath exports them. With `roi`, a box in level-0
    pixels, nothing outside of it is looked at. Raises InputError.
    """
    factor = min(mpp / MPP, LONGEST / max(slide.size), 1.0)
    if tissue == OTSU:
        mask = Mask(_otsu(overview(slide, factor), mpp / factor), factor)
    else:
        size = [max(1, round(n * factor)) for n in slide.size]
        drawn = np.ones(size, bool) if tissue == NONE else _drawn(Path(tissue), size, factor)
        mask = Mask(drawn, factor, sharp=tissue != NONE)
    mask.pixels[...] &= _rectangle(mask.pixels.shape, slide.bounds, factor)
    if roi:
        mask.pixels[...] &= _rectangle(mask.pixels.shape, _checked(roi, slide), factor)
    return mask


def parse_roi(text: str | None) -> Box | None:
    """The box of "x,y,width,height" in level-0 pixels. Raises InputError for other text."""
    if text is None:
        return None
    try:
        x, y, width, height = map(int, text.split(","))
    except ValueError as error:
        raise InputError(f"--roi is x,y,width,height in whole pixels, not {text}") from error
    return y, x, y + height, x + width


def _otsu(image: npt.NDArray[np.uint8], mpp: float) -> npt.NDArray[np.bool_]:
    """Coloured areas, without specks and holes, and a rim around them."""
    colour = cv2.medianBlur(image.max(2) - image.min(2), 5)
    limit, _ = cv2.threshold(colour, 0, 1, cv2.THRESH_OTSU)
    found = (colour > np.clip(limit, PALEST, STRONGEST)).astype(np.uint8)
    found = cv2.morphologyEx(found, cv2.MORPH_CLOSE, _disc(RIM / mpp))
    for value in (1, 0):  # specks of tissue, then holes in it
        _, parts, stats, _ = cv2.connectedComponentsWithStats((found == value).astype(np.uint8))
        small = stats[:, cv2.CC_STAT_AREA] < SPECK / mpp**2
        small[0] = False
        found[small[parts]] = 1 - value
    return cv2.dilate(found, _disc(RIM / mpp)) > 0


def _disc(radius: float) -> np.ndarray:
    side = 2 * max(round(radius), 1) + 1
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))


def _rectangle(shape, box, factor):
    r0, c0, r1, c1 = (n * factor for n in box)
    rows, cols = np.arange(shape[0])[:, None], np.arange(shape[1])
    return (rows + 1 > r0) & (rows < r1) & (cols + 1 > c0) & (cols < c1)


def _checked(roi: Box, slide: Slide) -> Box:
    r0, c0, r1, c1 = roi
    if not (0 <= r0 < r1 <= slide.size[0] and 0 <= c0 < c1 <= slide.size[1]):
        raise InputError(
            f"the rectangle of {c1 - c0} × {r1 - r0} pixels at x {c0}, y {r0} does not lie in "
            f"{slide.name}, which has {slide.size[1]:,} × {slide.size[0]:,} pixels"
        )
    return roi


def _drawn(path: Path, size: list[int], factor: float) -> npt.NDArray[np.bool_]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(
            f'the mask {path} cannot be read ({error.strerror}); give "otsu", "none", or the path '
            "of a PNG or GeoJSON file"
        ) from error
    try:
        if data.startswith(b"\x89PNG"):
            image = Image.open(io.BytesIO(data)).convert("L")
            return np.asarray(image.resize(size[::-1], Image.Resampling.NEAREST)) > 0
        return _polygons(orjson.loads(data), size, factor)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"the mask {path} is no PNG and no GeoJSON of polygons") from error


def _polygons(content, size, factor) -> npt.NDArray[np.bool_]:
    """Polygons of a GeoJSON object, filled by the odd-even rule, so that holes are holes."""
    import shapely

    if isinstance(content, list):  # features without a collection, as QuPath once wrote them
        content = {"type": "FeatureCollection", "features": content}
    try:
        geometries = shapely.from_geojson(orjson.dumps(content))
    except shapely.errors.ShapelyError as error:
        raise ValueError(error) from error
    polygons = shapely.get_parts(shapely.get_parts(geometries))
    if not len(polygons) or {polygon.geom_type for polygon in polygons} != {"Polygon"}:
        raise ValueError("no polygons")
    drawn = np.zeros(size, np.uint8)
    for polygon in polygons:
        rings = [np.array(r.coords)[:, :2] for r in (polygon.exterior, *polygon.interiors)]
        corners = [np.rint(ring * factor - 0.5).astype(np.int32) for ring in rings]
        one = np.zeros_like(drawn)
        cv2.fillPoly(one, corners, 1)
        drawn |= one
    return drawn > 0
