"""Images beside the GeoJSON in which their cells were outlined or corrected, as QuPath has them.

    ROOT/NAME.{png,tif,svs,…}    ROOT/NAME.geojson[.gz] or ROOT/NAME.png.geojson[.gz]

A file of several regions, such as a slide, becomes a field of each. Where a file has points of
classes, its cells are those that were pointed at, and its outlines are left aside: they may be what
a network found before. Large images without regions become fields around their points. Files
without cells and regions are left out.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import shapely

from cellvit_jax.data import files
from cellvit_jax.data.dataset import Dataset, Sample
from cellvit_jax.data.geojson import Annotated, read_cells
from cellvit_jax.data.lazy import Lazy
from cellvit_jax.data.rasterise import label_image
from cellvit_jax.errors import InputError
from cellvit_jax.slides import open_slide
from cellvit_jax.slides.collection import ENDINGS, slide_name

NEEDS = ("*.geojson*",)
MPP = 0.25
MAX_DIFFERENCE = 0.05  # of resolutions that count as equal
MAX_PIXELS = 50_000_000
MANY = 5  # names in a sentence
CORE, MARGIN = 1024, 128  # of a field around points: its side, and what is seen around it

# image, GeoJSON, box r0, c0, r1, c1, name of the field, and whether points count in it
Item = tuple[Path, Path, tuple[int, int, int, int], str, bool]


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """An image and its GeoJSON, what that holds, and whether points count in it, or outlines."""

    image: Path
    annotations: Path
    cells: Annotated
    pointed: bool

    @property
    def has_cells(self) -> bool:
        """Whether there is any cell that counts."""
        return self.pointed or len(self.cells.shapes) > 0

    @property
    def left_out(self) -> bool:
        """Whether there is no cell, and no region that is said to be free of any."""
        free = len(self.cells.regions) > 0 and not len(self.cells.points)
        return not self.has_cells and not free

    @property
    def names(self) -> tuple[str, ...]:
        """The classes of the cells."""
        return self.cells.point_names if self.pointed else self.cells.names

    def fields(self, size: tuple[int, int]) -> Iterator[Item]:
        """The fields of an image that is so large."""
        boxes = _around_points if self.pointed else _boxes
        for box, name in boxes(self.image, self.cells, size):
            yield self.image, self.annotations, box, name, self.pointed


def open(root: Path) -> dict[str, Dataset]:
    """All images of a folder with a GeoJSON of their name. Raises InputError."""
    return {"all": read(root, root)}


def read(
    images: Path,
    annotations: Path,
    classes: Sequence[str] = (),
    mpp: float | None = None,
    *,
    pointed: bool = True,
) -> Dataset:
    """The fields of an image and its GeoJSON, or of those of equal names in two folders.

    `classes` are names in the order of the ids to be; by default all that occur, sorted. Cells of
    no class have type 0, and so have all of a class not among them. `mpp` wins over what the
    images say. Without `pointed`, points are none, and outlines count in every file. Raises
    InputError.
    """
    sources = _sources(images, annotations, pointed)
    names = _classes(classes, {name for one in sources for name in one.names if name})
    opened = [open_slide(one.image, mpp=mpp) for one in sources]
    both = list(zip(sources, opened, strict=True))
    items = tuple(item for one, slide in both for item in one.fields(slide.size))
    mpp = mpp or _common({str(one.image): slide.mpp for one, slide in both})
    outlined = not any(one.pointed for one in sources)
    samples = Lazy(partial(read_item, classes=names), items)
    return Dataset(images.stem, samples, names, mpp=mpp, outlined=outlined)


def _sources(images: Path, annotations: Path, pointed: bool) -> list[Source]:
    """The images with cells; warns of those that are left out. Raises InputError without any."""
    found = []
    for image, path in _paired(images, annotations):
        cells = read_cells(path)
        found.append(Source(image, path, cells, pointed and len(cells.points) > 0))
    if not any(one.has_cells for one in found):
        some = any(len(one.cells.points) for one in found)
        rest = ", only points" if some else ", and no point of a class"
        raise InputError(f"{annotations} holds no outlined cell{rest}")
    if empty := [one.annotations.name for one in found if one.left_out]:
        warnings.warn(
            f"{len(empty)} of {len(found)} files hold no cells and are left out: "
            f"{', '.join(empty[:MANY])}{', …' if len(empty) > MANY else ''}",
            stacklevel=3,
        )
    return [one for one in found if not one.left_out]


def _classes(wanted: Sequence[str], occurring: set[str]) -> tuple[str, ...]:
    there = sorted(occurring)
    if absent := [name for name in wanted if name not in occurring]:
        warnings.warn(
            f"no cell is of class {', '.join(absent)}; there are {', '.join(there) or 'none'}",
            stacklevel=3,
        )
    return tuple(wanted) or tuple(there)


def _paired(images: Path, annotations: Path) -> list[tuple[Path, Path]]:
    if annotations.is_file() and images.is_file():
        return [(images, annotations)]
    if not (annotations.is_dir() and images.is_dir()):
        raise InputError(
            f"give an image and its GeoJSON, or two folders, not {images} and {annotations}"
        )
    by_name = {
        name: path
        for path in sorted(images.iterdir())
        if path.suffix.lower() in ENDINGS and not path.name.startswith(".")
        for name in (slide_name(path), path.name)
    }
    named = sorted(annotations.glob("*.geojson*"))
    if not named:
        raise InputError(f"{annotations} holds no .geojson file")
    if missing := [path for path in named if _stem(path) not in by_name]:
        raise InputError(f"{missing[0]} has no image of the same name in {images}")
    pairs = [(by_name[_stem(path)], path) for path in named]
    [(image, count)] = Counter(image for image, _ in pairs).most_common(1)
    if count > 1:
        raise InputError(f"{annotations} holds {count} GeoJSON files of {image.name}: keep one")
    return pairs


def _stem(path: Path) -> str:
    return path.name[: path.name.lower().index(".geojson")]


def _boxes(path: Path, cells: Annotated, size: tuple[int, int]):
    """The boxes of the fields of an image, and their names."""
    name = slide_name(path)
    if not len(cells.regions):
        if size[0] * size[1] > MAX_PIXELS:
            raise InputError(
                f"{path} is too large for one field ({size[1]:,} × {size[0]:,} pixels): draw "
                'rectangles of the class "Region*" around what is annotated'
            )
        return [((0, 0, *size), name)]
    boxes = [_clipped(box, size) for box in cells.regions]
    return [(box, f"{name}_{box[1]}_{box[0]}") for box in boxes if box[2] > box[0] < box[3]]


def _around_points(path: Path, cells: Annotated, size: tuple[int, int]):
    """The boxes, and the names, of the fields in which somebody pointed at cells."""
    if len(cells.regions) or max(size) <= CORE:
        yield from _boxes(path, cells, size)
        return
    x, y = np.clip(cells.points, 0, np.array(size[::-1]) - 1).T // CORE * CORE
    for r0, c0 in np.unique(np.stack([y, x], 1).astype(int), axis=0).tolist():
        box = _clipped(np.array([c0, r0, c0 + CORE, r0 + CORE]), size)
        yield box, f"{slide_name(path)}_{c0}_{r0}"


def _clipped(box: np.ndarray, size: tuple[int, int]) -> tuple[int, int, int, int]:
    x0, y0, x1, y1 = np.rint(box).astype(int).tolist()
    return max(0, y0), max(0, x0), min(size[0], y1), min(size[1], x1)


def _common(resolutions: dict[str, float | None]) -> float:
    known = {path: mpp for path, mpp in resolutions.items() if mpp}
    if not known:
        return MPP
    finest, coarsest = min(known, key=known.__getitem__), max(known, key=known.__getitem__)
    if known[coarsest] > known[finest] * (1 + MAX_DIFFERENCE):
        raise InputError(
            f"images of one set have one resolution, but {finest} has {known[finest]:.3g} µm per "
            f"pixel and {coarsest} {known[coarsest]:.3g}"
        )
    return known[finest]


def read_item(item: Item, classes: tuple[str, ...]) -> Sample:
    """A field of points or of outlines."""
    return (read_points if item[-1] else read_field)(item, classes)


def read_field(item: Item, classes: tuple[str, ...]) -> Sample:
    """The part of an image in a box, with the cells in it."""
    path, annotations, (r0, c0, r1, c1), name, _ = item
    cells = read_cells(annotations)
    image = np.ascontiguousarray(open_slide(path).read(r0, c0, r1 - r0, c1 - c0))
    x0, y0, x1, y1 = shapely.bounds(cells.shapes).reshape(-1, 4).T
    near = np.flatnonzero((x1 > c0) & (x0 < c1) & (y1 > r0) & (y0 < r1))
    here = shapely.transform(cells.shapes[near], lambda points: points - (c0, r0))
    instances = label_image(here, image.shape[:2])
    ids = {label: i for i, label in enumerate(classes, 1)}
    kinds = np.array([0, *(ids.get(cells.names[i], 0) for i in near)], np.int64)
    types = kinds[instances] if classes else None
    return files.field(path.with_name(name + ".png"), image, instances, types, len(classes))


def read_points(item: Item, classes: tuple[str, ...]) -> Sample:
    """The points in a box, and that part of the image with a margin around it."""
    path, annotations, (r0, c0, r1, c1), name, _ = item
    cells, slide = read_cells(annotations), open_slide(path)
    seen = np.array([c0, r0, c1, r1]) + np.repeat([-MARGIN, MARGIN], 2)
    top, left, bottom, right = _clipped(seen, slide.size)
    image = np.ascontiguousarray(slide.read(top, left, bottom - top, right - left))
    ids = {label: i for i, label in enumerate(classes, 1)}
    kinds = np.array([ids.get(label, 0) for label in cells.point_names], float)
    x, y = cells.points.T
    inside = (x >= c0) & (x < c1) & (y >= r0) & (y < r1)
    points = np.stack([x - left - 0.5, y - top - 0.5, kinds], 1)[inside].astype(np.float32)
    empty = np.zeros(image.shape[:2], np.int32)
    return Sample(name, image, empty, None, points=points)
