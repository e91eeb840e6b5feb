"""The table of cells as GeoParquet: what every other result is made from, and `read_cells` reads.

One row a cell, in level-0 pixels unless a name says otherwise:

  id, centroid_x, centroid_y, bbox_r0, bbox_c0, bbox_r1, bbox_c1 (end exclusive), area, area_um2
  (null where the resolution is unknown), type, type_name, type_prob, probabilities (list<float>),
  geometry (WKB polygon, corner-based, no crs), token (list<float>)

with `probabilities` and `token` only where the cells have them, and any further column as it is.
Centroids are pixel-centre coordinates, as everywhere else; polygons lie half a pixel further to
the right and down, where viewers expect them. The polygons are the contours to the last digit, so a
few touch themselves. The file's metadata holds `format_version`, `classes` ({id: {name, color}})
and `mpp`.
"""

from __future__ import annotations

import os
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import shapely

from cellvit_jax.cells.table import Cells, Classes
from cellvit_jax.errors import InputError
from cellvit_jax.exports import outlines
from cellvit_jax.exports.classes import all_classes, names_of
from cellvit_jax.files import atomic_open

FORMAT_VERSION = 1
_ROWS = 65_536  # a row group: bounds the memory that writing and partial reading take
_DERIVED = {"area_um2", "type_name"}  # columns for readers of the file; Cells do without
_GEO = {
    "version": "1.1.0",
    "primary_column": "geometry",
    "columns": {"geometry": {"encoding": "WKB", "geometry_types": ["Polygon"], "crs": None}},
}


def write(cells: Cells, path: str | os.PathLike[str]) -> None:
    """Write `cells` to `path`; `read_cells` gives an equal table back. Raises OutputError."""
    classes = all_classes(cells)
    empty = pa.RecordBatch.from_pylist([], cells.table.schema)
    schema = _encode(empty, cells.mpp, classes).schema.with_metadata(_metadata(cells))
    with atomic_open(path) as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for batch in cells.table.to_batches(_ROWS):
            writer.write_batch(_encode(batch, cells.mpp, classes))


def read_cells(path: str | os.PathLike[str]) -> Cells:
    """The cells in a file that `write` made, or in the `cells.parquet` of a result's folder.

    Raises InputError for what is not there or is no such file.
    """
    path = Path(path)
    path = path / "cells.parquet" if path.is_dir() else path
    try:
        table = pq.read_table(path)
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist; cells are read from a cells.parquet") from error
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(f"{path} is not a readable Parquet file: {error}") from error
    metadata = _checked_metadata(path, table.schema)
    classes = orjson.loads(metadata[b"classes"])
    return Cells(
        _decode(table),
        classes={int(c): (entry["name"], tuple(entry["color"])) for c, entry in classes.items()},
        mpp=orjson.loads(metadata[b"mpp"]),
    )


def _metadata(cells: Cells) -> dict[str, bytes]:
    classes = {str(c): {"name": name, "color": rgb} for c, (name, rgb) in cells.classes.items()}
    entries = {
        "format_version": FORMAT_VERSION,
        "classes": classes,
        "mpp": cells.mpp,
        "geo": _GEO,
    }
    return {key: orjson.dumps(value) for key, value in entries.items()}


def _checked_metadata(path: Path, schema: pa.Schema) -> dict[bytes, bytes]:
    metadata = schema.metadata or {}
    known = {b"format_version", b"classes", b"mpp"} <= metadata.keys()
    if not known or not _DERIVED | {"geometry"} <= set(schema.names):
        raise InputError(f"{path} holds no cells: it was not written by cellvit-jax")
    version = int(metadata[b"format_version"])
    if version > FORMAT_VERSION:
        raise InputError(
            f"{path} has format version {version}, this cellvit-jax reads up to {FORMAT_VERSION}: "
            "update it"
        )
    return metadata


def _encode(batch: pa.RecordBatch, mpp: float | None, classes: Classes) -> pa.RecordBatch:
    columns = {}
    for name, values in zip(batch.schema.names, batch.columns, strict=True):
        if name == "contour":
            wkb = shapely.to_wkb(outlines.polygons(*outlines.rings(values)))
            columns["geometry"] = pa.array(wkb, pa.binary())
        else:
            columns[name] = values
        if name == "area":
            columns["area_um2"] = _square_microns(values, mpp)
        elif name == "type":
            columns["type_name"] = names_of(values, classes)
    return pa.RecordBatch.from_pydict(columns)


def _square_microns(area: pa.Array, mpp: float | None) -> pa.Array:
    if mpp is None:
        return pa.nulls(len(area), pa.float64())
    return pa.array(area.to_numpy() * mpp**2, pa.float64())


def _decode(table: pa.Table) -> pa.Table:
    index = table.schema.get_field_index("geometry")
    chunks = [_contours(chunk) for chunk in table["geometry"].chunks]
    contours = pa.chunked_array(chunks, outlines.CONTOUR)
    table = table.set_column(index, "contour", contours)
    return table.drop_columns(list(_DERIVED)).replace_schema_metadata(None)


def _contours(wkb: pa.BinaryArray) -> pa.ListArray:
    return outlines.contours(shapely.from_wkb(wkb.to_numpy(zero_copy_only=False)))
