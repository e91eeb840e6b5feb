"""Vectors with their positions: Parquet, or AnnData (`.h5ad`, `.zarr`) with the extra `anndata`.

A row is a cell or a patch: id, x, y (its centre in level-0 pixels, pixel-centre coordinates),
type_name of a cell or side of a patch (level-0 pixels), and the embedding, float16 on the disk. In
Parquet that is a fixed-size list; in AnnData it is X, the centres are `obsm["spatial"]`, and the
rest is `obs`. Parts are written as they come: a slide's vectors are never in memory whole.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from cellvit_jax.errors import InputError, optional
from cellvit_jax.exports.anndata import _ARRAY, _ROOT
from cellvit_jax.files import atomic_open, replacing

FORMAT_VERSION = 1
CHUNK = 1024  # rows of X
LARGEST = float(np.finfo(np.float16).max)


def halves(table: pa.Table) -> pa.Array:
    """The column `token` in half precision; what is larger than that can hold becomes its end."""
    if "token" not in table.column_names or not table.num_rows:
        width = table.schema.field("token").type.list_size if "token" in table.column_names else 1
        return pa.array([], pa.list_(pa.float16(), width))
    tokens = table["token"].combine_chunks()
    values = np.clip(tokens.flatten().to_numpy(), -LARGEST, LARGEST).astype(np.float16)
    return pa.FixedSizeListArray.from_arrays(pa.array(values), tokens.type.list_size)


def write(tables: Iterable[pa.Table], path: Path, *, mpp: float) -> None:
    """Write tables with the columns named above, in the format that the name ends in.

    Raises InputError, OutputError, MissingExtraError.
    """
    parts = iter(tables)
    first = next(parts, None)
    if first is None:
        raise InputError("nothing was looked at: there are no embeddings to write (see --tissue)")
    writer = {".parquet": _parquet, ".h5ad": _h5ad, ".zarr": _zarr}[path.suffix]
    writer(itertools.chain([first], parts), first.schema, path, mpp)


def _parquet(tables: Iterator[pa.Table], schema: pa.Schema, path: Path, mpp: float) -> None:
    schema = schema.with_metadata(
        {"format_version": str(FORMAT_VERSION), "mpp": orjson.dumps(mpp).decode()}
    )
    with atomic_open(path) as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for table in tables:
            writer.write_table(table.replace_schema_metadata(schema.metadata))


def _h5ad(tables: Iterator[pa.Table], schema: pa.Schema, path: Path, mpp: float) -> None:
    h5py = optional("h5py", "anndata")
    width = schema.field("embedding").type.list_size
    with replacing(path) as partial, h5py.File(partial, "w") as file:
        shapes = {"shape": (0, width), "maxshape": (None, width), "chunks": (CHUNK, width)}
        x = file.create_dataset("X", dtype=np.float16, **shapes)
        _fill(file, x, tables, mpp)


def _zarr(tables: Iterator[pa.Table], schema: pa.Schema, path: Path, mpp: float) -> None:
    zarr, anndata = optional("zarr", "anndata"), optional("anndata", "anndata")
    width = schema.field("embedding").type.list_size
    with replacing(path) as partial:
        version = anndata.settings.zarr_write_format
        root = zarr.open_group(partial, mode="w", zarr_format=version)
        x = root.create_array("X", shape=(0, width), chunks=(CHUNK, width), dtype=np.float16)
        _fill(root, x, tables, mpp)
        zarr.consolidate_metadata(root.store)


def _fill(root: Any, x: Any, tables: Iterator[pa.Table], mpp: float) -> None:
    """X part by part, and beside it what all rows are."""
    write_elem, pandas = optional("anndata.io", "anndata").write_elem, optional("pandas", "anndata")
    rows = []
    for table in tables:
        vectors = table["embedding"].combine_chunks().flatten().to_numpy()
        end = x.shape[0] + table.num_rows
        x.resize((end, x.shape[1]))
        if table.num_rows:
            x[end - table.num_rows :] = vectors.reshape(table.num_rows, -1)
        rows.append(table.drop_columns(["embedding"]))
    x.attrs.update(_ARRAY)
    root.attrs.update(_ROOT)
    every = pa.concat_tables(rows)
    columns = {name: every[name].to_numpy() for name in every.column_names}
    if "type_name" in columns:
        columns["type_name"] = pandas.Categorical(columns["type_name"])
    names = pandas.Index([f"embedding_{i}" for i in range(x.shape[1])], dtype=object)
    position = np.stack([columns.pop("x"), columns.pop("y")], axis=1)
    write_elem(root, "obs", pandas.DataFrame(columns, index=columns["id"].astype(str)))
    write_elem(root, "var", pandas.DataFrame(index=names))
    write_elem(root, "obsm", {"spatial": position})
    write_elem(root, "uns", {"mpp": mpp})
