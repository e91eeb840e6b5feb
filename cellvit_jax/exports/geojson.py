"""Cells as GeoJSON that QuPath opens: one `detection` per cell, with class, colour, measurements.

Polygons are closed, valid and corner-based, in level-0 pixels, as QuPath has them. The id of a
cell follows from its number and place, so that the same cells always give the same file.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import itertools
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import orjson
import pyarrow as pa
import shapely

from cellvit_jax.cells.table import Cells
from cellvit_jax.exports import outlines
from cellvit_jax.exports.blocks import Source, opened, regrouped, uncollected
from cellvit_jax.exports.classes import completed
from cellvit_jax.exports.columns import described, probabilities
from cellvit_jax.files import atomic_open

_ROWS = 8_192  # cells that are Python objects at one time
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_DNS, "cellvit-jax").bytes
_SQUARE = shapely.box(0, 0, 1, 1)
# name in QuPath -> column, where the cells have it
_IN_MICRONS = {"Area µm^2": "area_um2", "Perimeter µm": "perimeter_um"}
_IN_PIXELS = {"Area px^2": "area", "Perimeter px": "perimeter"}
_WITHOUT_UNIT = {
    "Eccentricity": "eccentricity",
    "Solidity": "solidity",
    "Hematoxylin OD mean": "haematoxylin_mean",
    "Hematoxylin OD std dev": "haematoxylin_sd",
    "Type probability": "type_prob",
}


def write(cells: Source, path: str | os.PathLike[str]) -> None:
    """Write `cells` to `path`, compressed if it ends in `.gz`. Raises OutputError.

    Measurements: what the cells have of area and perimeter (µm, or pixels where the resolution is
    unknown), eccentricity, solidity, mean and standard deviation of the haematoxylin's optical
    density; the probability of the type, and that of every class.
    """
    head, tables = opened(cells)
    with atomic_open(path) as file, _stream(file, Path(path)) as out:
        out.write(b'{"type":"FeatureCollection","features":[')
        separator = b"\n"
        for batch in regrouped(tables, _ROWS):
            with uncollected():
                out.write(separator + b",\n".join(_features(batch, head)))
            separator = b",\n"
        out.write(b"\n]}\n")


@contextlib.contextmanager
def _stream(file: BinaryIO, path: Path) -> Iterator[BinaryIO]:
    if path.suffix.lower() != ".gz":
        yield file
        return
    # of level 6 the file is 3 % smaller, and takes half as long again
    # neither name nor time inside: equal cells, equal bytes
    with gzip.GzipFile("", "wb", compresslevel=5, fileobj=file, mtime=0) as compressed:
        yield cast(BinaryIO, compressed)


def _features(batch: pa.RecordBatch, head: Cells) -> Iterator[bytes]:
    types = batch["type"].to_pylist()
    classes = completed(head.classes, set(types))
    labels = {c: {"name": name, "color": rgb} for c, (name, rgb) in classes.items()}
    measured = _measurements(batch, head)
    names, values = list(measured), np.stack(list(measured.values()), 1).round(4).tolist()
    rows = zip(_ids(batch), _geometries(batch["contour"]), types, values, strict=True)
    for id_, geometry, type_, numbers in rows:
        properties = {
            "objectType": "detection",
            "classification": labels[type_],
            "measurements": dict(zip(names, numbers, strict=True)),
        }
        feature = {"type": "Feature", "id": id_, "geometry": geometry, "properties": properties}
        yield orjson.dumps(feature, option=orjson.OPT_SERIALIZE_NUMPY)


def _ids(batch: pa.RecordBatch) -> Iterator[str]:
    """Name-based UUIDs as `uuid.uuid5` makes them, in a third of its time."""
    columns = (batch[name].to_pylist() for name in ("id", "centroid_x", "centroid_y"))
    for number, x, y in zip(*columns, strict=True):
        name = b"%d %.3f %.3f" % (number, x, y)
        digest = hashlib.sha1(_NAMESPACE + name, usedforsecurity=False).hexdigest()
        variant = "89ab"[int(digest[16], 16) % 4]
        yield (
            f"{digest[:8]}-{digest[8:12]}-5{digest[13:16]}-{variant}{digest[17:20]}-{digest[20:32]}"
        )


def _geometries(contours: pa.ListArray) -> Iterator[dict[str, Any]]:
    """Of valid (multi)polygons; outer rings turn from x to y, as RFC 7946 wants them."""
    points, starts = outlines.rings(contours)
    polygons = outlines.polygons(points.round(2), starts)
    invalid = ~shapely.is_valid(polygons)
    repaired = iter(shapely.orient_polygons(outlines.repair(polygons[invalid])))
    polygons[invalid] = _SQUARE  # of one ring, as the others are
    _, points, (starts, _) = shapely.to_ragged_array(shapely.orient_polygons(polygons))
    for (start, end), broken in zip(itertools.pairwise(starts), invalid, strict=True):
        if broken:
            yield shapely.geometry.mapping(next(repaired))
        else:
            yield {"type": "Polygon", "coordinates": [points[start:end]]}


def _measurements(batch: pa.RecordBatch, head: Cells) -> dict[str, np.ndarray]:
    """Values (N,) float64 by QuPath's names."""
    columns = described(batch, head)
    names = (_IN_PIXELS if head.mpp is None else _IN_MICRONS) | _WITHOUT_UNIT
    found = {name: columns[column] for name, column in names.items() if column in columns}
    of_classes = probabilities(batch, head.classes)
    found |= {f"Probability {name}": values for name, values in of_classes.items()}
    return {name: np.asarray(values, np.float64) for name, values in found.items()}
