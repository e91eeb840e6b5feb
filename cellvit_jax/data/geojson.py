"""Cells in GeoJSON: what QuPath exports, and what this package and CellViT export for it."""

from __future__ import annotations

import dataclasses
import functools
import gzip
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import shapely

from cellvit_jax.data.rasterise import valid
from cellvit_jax.errors import InputError

ANNOTATION = "annotation"
REGION = "Region*"
IGNORED = "*"  # QuPath ends the names of classes with it that are no classes of cells
SEVERAL = 3  # an annotation around so many cells is an area, not a nucleus


@dataclasses.dataclass(frozen=True, eq=False)
class Annotated:
    """Outlined cells of an image: N valid polygons, corner-based, in its level-0 pixels.

    `names` are their classes, "" where there is none; `regions` (M,4) the boxes x0, y0, x1, y1 of
    the areas in which all cells are annotated, none if that is the whole image. Cells that were
    pointed at are `points` (P,2), x and y, likewise corner-based, of the classes `point_names`.
    """

    shapes: np.ndarray
    names: tuple[str, ...]
    regions: np.ndarray
    points: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, 2)))
    point_names: tuple[str, ...] = ()


def read_cells(path: Path) -> Annotated:
    """The cells of a `.geojson` or `.geojson.gz` file, if it has any. Raises InputError.

    A cell is a detection (of a QuPath cell its nucleus) or a polygon of an annotation, as in
    CellViT's exports, which have one annotation a class. An annotation around three or more cells
    is an area, and none of them: one without a class, or of QuPath's class "Region*", bounds what
    was annotated. Other classes that end in "*" are ignored. Points count where they have a class.
    """
    return _read(path, path.stat().st_mtime_ns if path.exists() else 0)


@functools.lru_cache(maxsize=2)  # the regions of one slide share a file, which can be large
def _read(path: Path, _: int) -> Annotated:
    try:
        features = _features(path)
        found = [part for feature in features for part in _parts(feature)]
        pointed = [part for feature in features for part in _points(feature)]
        shapes = valid(shapely.from_geojson([orjson.dumps(shape) for shape, *_ in found]))
        points = np.array([place[:2] for place, _ in pointed], float).reshape(-1, 2)
    except (KeyError, TypeError, AttributeError, ValueError, shapely.errors.ShapelyError) as error:
        raise InputError(f"{path} is no GeoJSON of outlined cells ({error})") from error
    names = np.array([name for _, name, _ in found], object)
    drawn = np.array([annotation for *_, annotation in found], bool)
    areas = _around_others(shapes, drawn) | (names == REGION)
    ignored = np.array([name.endswith(IGNORED) for name in names], bool)
    regions = shapes[areas & ((names == "") | (names == REGION))]
    cells = ~areas & ~ignored & ~shapely.is_empty(shapes)
    boxes = shapely.bounds(regions).reshape(-1, 4)
    return Annotated(
        shapes[cells], tuple(names[cells]), boxes, points, tuple(name for _, name in pointed)
    )


def _features(path: Path) -> list[dict[str, Any]]:
    try:
        data = path.read_bytes()
        content = orjson.loads(gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data)
    except (OSError, EOFError, ValueError) as error:
        raise InputError(f"{path} cannot be read as GeoJSON ({error})") from error
    if isinstance(content, dict):
        content = content.get("features", [content])
    return content


def _parts(feature: dict[str, Any]) -> list[tuple[dict[str, Any], str, bool]]:
    """The polygons of a feature, their class, and whether a person drew them."""
    properties = feature.get("properties") or {}
    geometry = feature.get("nucleusGeometry") or properties.get("nucleusGeometry")
    geometry = geometry or feature["geometry"]
    kind = geometry["type"]
    if kind not in ("Polygon", "MultiPolygon"):
        return []
    name = _class_name(properties)
    annotation = properties.get("objectType", properties.get("object_type")) == ANNOTATION
    if kind == "Polygon" or not annotation:  # a detection in pieces is one cell
        return [(geometry, name, annotation)]
    rings = geometry["coordinates"]
    return [({"type": "Polygon", "coordinates": one}, name, annotation) for one in rings]


def _points(feature: dict[str, Any]) -> list[tuple[list[float], str]]:
    """The points of a feature and their class, if it has one."""
    geometry, name = feature["geometry"], _class_name(feature.get("properties") or {})
    places = {"Point": lambda p: [p], "MultiPoint": list}.get(geometry["type"], lambda _: [])
    if not name or name.endswith(IGNORED):
        return []
    return [(place, name) for place in places(geometry["coordinates"])]


def _class_name(properties: dict[str, Any]) -> str:
    label = properties.get("classification") or {}
    return str(label if isinstance(label, str) else label.get("name") or "")


def _around_others(shapes: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """Which of the drawn shapes hold the centres of several others."""
    tree = shapely.STRtree(shapely.centroid(shapes))
    candidates = np.flatnonzero(drawn)
    outer, inner = tree.query(shapes[candidates], predicate="intersects")
    others = candidates[outer[candidates[outer] != inner]]
    return np.bincount(others, minlength=len(shapes)) >= SEVERAL
