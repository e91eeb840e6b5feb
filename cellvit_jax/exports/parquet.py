"""The table of cells as GeoParquet: what every other result is made from, and `read_cells` reads.

One row a cell, in level-0 pixels unless a name says otherwise:

  id, centroid_x, centroid_y, bbox_r0, bbox_c0, bbox_r1, bbox_c1 (end exclusive), area, area_um2
  (null where the resolution is unknown), type, type_name, type_prob, probabilities (list<float>),
  geometry (WKB polygon, corner-based, no crs), token (list<float>), perimeter, perimeter_um,
  eccentricity, solidity, haematoxylin_mean, haematoxylin_sd

with `probabilities`, `token` and what follows only where the cells have them, and any further
column as it is.
Centroids are pixel-centre coordinates, as everywhere else; polygons lie half a pixel further to
the right and down, where viewers expect them. The polygons are the contours to the last digit, so a
few touch themselves. The file's metadata holds `format_version`, `classes` ({id: {name, color}})
and `mpp`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import shapely

from cellvit_jax.cells.table import Cells
from cellvit_jax.errors import InputError
from cellvit_jax.exports import outlines
from cellvit_jax.exports.blocks import Source, opened, regrouped
from cellvit_jax.exports.columns import DERIVED, described
from cellvit_jax.files import atomic_open

FORMAT_VERSION = 1
# a row group, which bounds the memory that writing and partial reading take: cells, bytes of tokens
_ROWS, _TOKENS = 65_536, 2**26
_GEO = {
    "version": "1.1.0",
    "primary_column": "geometry",
    "columns": {"geometry": {"encoding": "WKB", "geometry_types": ["Polygon"], "crs": None}},
}


def write(cells: Source, path: str | os.PathLike[str]) -> None:
    """Write `cells` to `path`, a row group at a time. Raises OutputError.

    `read_cells` gives an equal table back, `iter_cells` one row group at a time.
    """
    head, tables = opened(cells)
    empty = pa.RecordBatch.from_pylist([], head.table.schema)
    schema = _encode(empty, head).schema.with_metadata(_metadata(head))
    with atomic_open(path) as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for batch in regrouped(tables, _rows(head.table.schema)):
            writer.write_batch(_encode(batch, head))


def read_cells(path: str | os.PathLike[str]) -> Cells:
    """The cells in a file that `write` made, or in the `cells.parquet` of a result's folder.

    Raises InputError for what is not there or is no such file.
    """
    blocks = list(iter_cells(path))
    return dataclasses.replace(blocks[0], table=pa.concat_tables([b.table for b in blocks]))


def iter_cells(path: str | os.PathLike[str]) -> Iterator[Cells]:
    """The cells that `read_cells` gives, block by block, in memory that does not grow with them.

    At least one block, so that every writer takes it. Raises InputError as `read_cells` does, for
    what is damaged further on when it comes to it.
    """
    file, path = _opened(path)
    metadata = file.schema_arrow.metadata
    classes = orjson.loads(metadata[b"classes"])
    head = Cells(
        _decode(file.schema_arrow.empty_table()),
        classes={int(c): (entry["name"], tuple(entry["color"])) for c, entry in classes.items()},
        mpp=orjson.loads(metadata[b"mpp"]),
    )
    return itertools.chain([head], _row_groups(file, path, head))


def count_cells(path: str | os.PathLike[str]) -> int:
    """How many cells `read_cells` would give, from the end of the file alone; with its errors."""
    file, _ = _opened(path)
    with file:
        return file.metadata.num_rows


def _opened(path: str | os.PathLike[str]) -> tuple[pq.ParquetFile, Path]:
    path = Path(path)
    path = path / "cells.parquet" if path.is_dir() else path
    with _readable(path):
        file = pq.ParquetFile(path)
    _check(path, file.schema_arrow)
    return file, path


def _row_groups(file: pq.ParquetFile, path: Path, head: Cells) -> Iterator[Cells]:
    with file:
        for group in range(file.num_row_groups):
            with _readable(path):
                table = file.read_row_group(group)
            yield dataclasses.replace(head, table=_decode(table))


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist; cells are read from a cells.parquet") from error
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(f"{path} is not a readable Parquet file: {error}") from error


def _rows(schema: pa.Schema) -> int:
    if "token" not in schema.names:
        return _ROWS
    return min(_ROWS, max(1, _TOKENS // (4 * schema.field("token").type.list_size)))


def _metadata(cells: Cells) -> dict[str, bytes]:
    classes = {str(c): {"name": name, "color": rgb} for c, (name, rgb) in cells.classes.items()}
    entries = {
        "format_version": FORMAT_VERSION,
        "classes": classes,
        "mpp": cells.mpp,
        "geo": _GEO,
    }
    return {key: orjson.dumps(value) for key, value in entries.items()}


def _check(path: Path, schema: pa.Schema) -> None:
    metadata = schema.metadata or {}
    known = {b"format_version", b"classes", b"mpp"} <= metadata.keys()
    if not known or not {"geometry", "type", "id"} <= set(schema.names):
        raise InputError(f"{path} holds no cells: it was not written by cellvit-jax")
    version = int(metadata[b"format_version"])
    if version > FORMAT_VERSION:
        raise InputError(
            f"{path} has format version {version}, this cellvit-jax reads up to {FORMAT_VERSION}: "
            "update it"
        )


def _encode(batch: pa.RecordBatch, head: Cells) -> pa.RecordBatch:
    columns = described(batch, head)
    renamed = {"geometry" if name == "contour" else name: c for name, c in columns.items()}
    return pa.RecordBatch.from_pydict(renamed | {"geometry": _wkb(batch["contour"])})


def _decode(table: pa.Table) -> pa.Table:
    index = table.schema.get_field_index("geometry")
    chunks = [_contours(chunk) for chunk in table["geometry"].chunks]
    contours = pa.chunked_array(chunks, outlines.CONTOUR)
    table = table.set_column(index, "contour", contours)
    kept = [name for name in table.schema.names if name not in DERIVED]
    return table.select(kept).replace_schema_metadata(None)


def _wkb(contours: pa.ListArray) -> pa.BinaryArray:
    return pa.array(shapely.to_wkb(outlines.polygons(*outlines.rings(contours))), pa.binary())


def _contours(wkb: pa.BinaryArray) -> pa.ListArray:
    return outlines.contours(shapely.from_wkb(wkb.to_numpy(zero_copy_only=False)))
