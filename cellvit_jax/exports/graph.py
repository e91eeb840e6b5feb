"""The cell graph as `.npz`: cells, their tokens, and edges between neighbours.

  id (N,) int64, position (N, 2) float64: x, y in level-0 pixels, type (N,) int32, class_ids and
  class_names; token (N, D) float32, where the cells have them; edge_index (2, E) int64: rows of
  these arrays, every edge in both directions, as PyTorch Geometric and Jraph take them;
  edge_length (E,) float32, mpp float64: µm, or pixels and NaN where the resolution is unknown

Read it with `numpy.load`. Tokens are never in memory whole.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa

from cellvit_jax.cells.graph import neighbours
from cellvit_jax.cells.table import Cells
from cellvit_jax.errors import InputError
from cellvit_jax.exports.blocks import Source, opened
from cellvit_jax.exports.classes import completed
from cellvit_jax.files import atomic_open

_KEPT = ["id", "centroid_x", "centroid_y", "type"]
MAX_LENGTH = 50.0  # µm, some five nuclei: across a wider gap, cells are no neighbours


def write(
    cells: Source,
    path: str | os.PathLike[str],
    *,
    k: int | None = None,
    max_length: float | None = None,
) -> None:
    """Write the graph of `cells` to `path`; see `edges`. Raises InputError, OutputError."""
    head, tables = opened(cells)
    path = Path(path)
    with atomic_open(path) as file, tempfile.TemporaryFile(dir=path.parent) as spool:
        table = pa.concat_tables([head.table.select(_KEPT), *_spooled(tables, spool)])
        arrays = _nodes(table, head)
        arrays |= _edges(arrays["position"], head, k, max_length)
        with zipfile.ZipFile(file, "w") as archive:
            for name, array in arrays.items():
                with _member(archive, name) as member:
                    np.lib.format.write_array(member, np.asarray(array, order="C"))
            if "token" in head.table.schema.names:
                width = head.table.schema.field("token").type.list_size
                _write_tokens(archive, spool, (len(table), width))


def edges(
    positions: np.ndarray,
    mpp: float | None,
    *,
    k: int | None = None,
    max_length: float | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """`neighbours` of cells at `positions` in pixels, with lengths in µm where `mpp` is known.

    Delaunay edges, or those to the `k` nearest, of at most `max_length` µm: 50, or any where the
    resolution is unknown. Raises `InputError` for a length that cannot be told, or `k` under 1.
    """
    if k is not None and k < 1:
        raise InputError(f"a cell has 1 or more nearest neighbours, not {k}")
    if max_length is not None and mpp is None:
        raise InputError("the resolution of these cells is unknown: no edge has a length in µm")
    if max_length is not None and not max_length > 0:
        raise InputError(f"the longest edge must be over 0 µm, not {max_length}")
    if mpp is None:
        return neighbours(positions, k=k)
    return neighbours(positions * mpp, k=k, max_length=max_length or MAX_LENGTH)


def _nodes(table: pa.Table, head: Cells) -> dict[str, np.ndarray]:
    classes = completed(head.classes, table["type"].unique().to_pylist())
    return {
        "id": table["id"].to_numpy(),
        "position": np.stack([table["centroid_x"], table["centroid_y"]], axis=1),
        "type": table["type"].to_numpy(),
        "class_ids": np.array(list(classes), np.int32),
        "class_names": np.array([name for name, _ in classes.values()], np.str_),
        "mpp": np.array(np.nan if head.mpp is None else head.mpp),
    }


def _edges(
    position: np.ndarray, head: Cells, k: int | None, max_length: float | None
) -> dict[str, np.ndarray]:
    once, lengths = edges(position, head.mpp, k=k, max_length=max_length)
    return {
        "edge_index": np.concatenate([once, once[:, ::-1]]).T,
        "edge_length": np.tile(np.float32(lengths), 2),
    }


def _spooled(tables: Iterable[pa.Table], spool: IO[bytes]) -> Iterator[pa.Table]:
    """The small columns; tokens go to a file, as where they begin is known only after the last."""
    for table in tables:
        if "token" in table.schema.names:
            for chunk in table["token"].chunks:
                spool.write(np.ascontiguousarray(chunk.flatten().to_numpy(), "<f4").data)
        yield table.select(_KEPT)


def _write_tokens(archive: zipfile.ZipFile, spool: IO[bytes], shape: tuple[int, int]) -> None:
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    spool.seek(0)
    with _member(archive, "token") as member:
        np.lib.format.write_array_header_1_0(member, header)
        shutil.copyfileobj(spool, member, 2**20)


def _member(archive: zipfile.ZipFile, name: str) -> IO[bytes]:
    # ZipInfo has a constant date: equal cells, equal bytes
    return archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True)
