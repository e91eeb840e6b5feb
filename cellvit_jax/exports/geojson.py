"""Cells as GeoJSON that QuPath opens: one `detection` per cell, with class, colour, measurements.

Polygons are closed, valid and corner-based, in level-0 pixels, as QuPath has them. The id of a
cell follows from its number and place, so that the same cells always give the same file.
"""

from __future__ import annotations

import contextlib
import gzip
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

from cellvit_jax.cells.table import Cells, Classes
from cellvit_jax.exports import outlines
from cellvit_jax.exports.classes import all_classes
from cellvit_jax.files import atomic_open

_ROWS = 8_192  # cells that are Python objects at one time
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_DNS, "cellvit-jax")


def write(cells: Cells, path: str | os.PathLike[str]) -> None:
    """Write `cells` to `path`, compressed if it ends in `.gz`. Raises OutputError.

    Measurements: the area in µm², or in pixels where the resolution is unknown; the probability of
    the type; that of every class where the cells have them.
    """
    classes = all_classes(cells)
    with atomic_open(path) as file, _stream(file, Path(path)) as out:
        out.write(b'{"type":"FeatureCollection","features":[')
        separator = b"\n"
        for batch in cells.table.to_batches(_ROWS):
            out.write(separator + b",\n".join(_features(batch, cells.mpp, classes)))
            separator = b",\n"
        out.write(b"\n]}\n")


@contextlib.contextmanager
def _stream(file: BinaryIO, path: Path) -> Iterator[BinaryIO]:
    if path.suffix != ".gz":
        yield file
        return
    # neither name nor time inside: equal cells, equal bytes
    with gzip.GzipFile("", "wb", compresslevel=6, fileobj=file, mtime=0) as compressed:
        yield cast(BinaryIO, compressed)


def _features(batch: pa.RecordBatch, mpp: float | None, classes: Classes) -> Iterator[bytes]:
    labels = {c: {"name": name, "color": list(rgb)} for c, (name, rgb) in classes.items()}
    names, values = _measurements(batch, mpp, classes)
    rows = zip(
        _ids(batch), _geometries(batch["contour"]), batch["type"].to_pylist(), values, strict=True
    )
    for id_, geometry, type_, measured in rows:
        properties = {
            "objectType": "detection",
            "classification": labels[type_],
            "measurements": dict(zip(names, measured, strict=True)),
        }
        feature = {"type": "Feature", "id": id_, "geometry": geometry, "properties": properties}
        yield orjson.dumps(feature, option=orjson.OPT_SERIALIZE_NUMPY)


def _ids(batch: pa.RecordBatch) -> Iterator[str]:
    columns = (batch[name].to_pylist() for name in ("id", "centroid_x", "centroid_y"))
    for number, x, y in zip(*columns, strict=True):
        yield str(uuid.uuid5(_NAMESPACE, f"{number} {x:.3f} {y:.3f}"))


def _geometries(contours: pa.ListArray) -> Iterator[dict[str, Any]]:
    points, starts = outlines.rings(contours)
    points = points.round(2)
    polygons = outlines.polygons(points, starts)
    invalid = np.flatnonzero(~shapely.is_valid(polygons))
    repaired = dict(zip(invalid, outlines.repair(polygons[invalid]), strict=True))
    for row, (start, end) in enumerate(itertools.pairwise(starts)):
        if row in repaired:
            yield shapely.geometry.mapping(repaired[row])
        else:
            yield {"type": "Polygon", "coordinates": [points[start:end]]}


def _measurements(
    batch: pa.RecordBatch, mpp: float | None, classes: Classes
) -> tuple[list[str], list[list[float]]]:
    """Names of the measurements, and their values, one list a cell."""
    area = batch["area"].to_numpy() * (mpp**2 if mpp else 1)
    names = ["Area µm^2" if mpp else "Area px", "Type probability"]
    columns = [area, batch["type_prob"].to_numpy()]
    if "probabilities" in batch.schema.names and len(batch):
        probabilities = np.stack(batch["probabilities"].to_numpy(zero_copy_only=False))
        known = [c for c in classes if c < probabilities.shape[1]]
        names += [f"Probability {classes[c][0]}" for c in known]
        columns += list(probabilities[:, known].T)
    return names, np.stack(columns, axis=1).astype(np.float64).round(4).tolist()
