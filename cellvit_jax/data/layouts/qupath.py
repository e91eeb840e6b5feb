"""Images beside the GeoJSON in which their cells were outlined or corrected, as QuPath has them.

    ROOT/NAME.{png,tif,svs,…}    ROOT/NAME.geojson[.gz]

A file of several regions, such as a slide, becomes a field of each.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
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

Item = tuple[Path, Path, tuple[int, int, int, int], str]  # box: r0, c0, r1, c1; name of the field


def open(root: Path) -> dict[str, Dataset]:
    """All images of a folder with a GeoJSON of their name. Raises InputError."""
    return {"all": read(root, root)}


def read(
    images: Path, annotations: Path, classes: Sequence[str] = (), mpp: float | None = None
) -> Dataset:
    """The fields of an image and its GeoJSON, or of those of equal names in two folders.

    `classes` are names in the order of the ids to be; by default all that occur, sorted. Cells of
    no class have type 0, and so have all of a class not among them. `mpp` wins over what the
    images say. Raises InputError.
    """
    pairs = _paired(images, annotations)
    found = [read_cells(path) for _, path in pairs]
    names = _classes(classes, {name for one in found for name in one.names if name})
    opened = [open_slide(path, mpp=mpp) for path, _ in pairs]
    items = [
        (*pair, box, name)
        for pair, one, slide in zip(pairs, found, opened, strict=True)
        for box, name in _boxes(pair[0], one, slide.size)
    ]
    resolutions = {str(slide[0]): one.mpp for slide, one in zip(pairs, opened, strict=True)}
    samples = Lazy(partial(read_field, classes=names), tuple(items))
    return Dataset(images.stem, samples, names, mpp=_common(resolutions))


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
        slide_name(path): path
        for path in sorted(images.iterdir())
        if path.suffix.lower() in ENDINGS and not path.name.startswith(".")
    }
    named = sorted(annotations.glob("*.geojson*"))
    if not named:
        raise InputError(f"{annotations} holds no .geojson file")
    if missing := [path for path in named if _stem(path) not in by_name]:
        raise InputError(f"{missing[0]} has no image of the same name in {images}")
    return [(by_name[_stem(path)], path) for path in named]


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


def read_field(item: Item, classes: tuple[str, ...]) -> Sample:
    """The part of an image in a box, with the cells in it."""
    path, annotations, (r0, c0, r1, c1), name = item
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
