"""Cells as AnnData (`.h5ad`, `.zarr`) for scanpy and squidpy; needs the extra `anndata`.

  X                 tokens (N, D) float32, if the cells have them
  obs               a row a cell: all columns of the table that hold one number; `type_name` is
                    categorical, and `uns["type_name_colors"]` are its colours as scanpy wants them
  obsm              "spatial": centroids x, y in level-0 pixels; "probabilities", whose columns
                    `uns["probabilities"]` names
  obsp              "spatial_connectivities" and "spatial_distances" (µm where the resolution is
                    known): the cell graph, under squidpy's names
  uns               "mpp", where it is known; "spatial_neighbors"

X is never in memory whole; all the rest is: about 0.9 GB for a million cells, most of it for their
triangulation.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.sparse import csr_matrix

from cellvit_jax.cells.table import Cells, Classes
from cellvit_jax.errors import optional
from cellvit_jax.exports import graph
from cellvit_jax.exports.blocks import Source, opened, regrouped
from cellvit_jax.exports.classes import completed
from cellvit_jax.exports.columns import scalars
from cellvit_jax.files import replacing

_ROWS = 8_192  # cells whose tokens are in memory at one time, and in a chunk of the file
# of https://anndata.readthedocs.io/en/stable/fileformat-prose.html
_ROOT = {"encoding-type": "anndata", "encoding-version": "0.1.0"}
_ARRAY = {"encoding-type": "array", "encoding-version": "0.2.0"}


def write_h5ad(cells: Source, path: str | os.PathLike[str], **edges: Any) -> None:
    """Write `cells` to an HDF5 file; `edges`: see `graph.edges`.

    Raises InputError, OutputError, MissingExtraError.
    """
    h5py = optional("h5py", "anndata")

    def token_array(file: Any, width: int) -> Any:
        shapes = {"shape": (0, width), "maxshape": (None, width), "chunks": (_ROWS // 16, width)}
        return file.create_dataset("X", dtype=np.float32, **shapes)

    with replacing(path) as partial, h5py.File(partial, "w") as file:
        _write(cells, file, token_array, edges)


def write_zarr(cells: Source, path: str | os.PathLike[str], **edges: Any) -> None:
    """Write `cells` to a Zarr folder; otherwise as `write_h5ad`."""
    zarr, anndata = optional("zarr", "anndata"), optional("anndata", "anndata")

    def token_array(root: Any, width: int) -> Any:
        return root.create_array("X", shape=(0, width), chunks=(_ROWS, width), dtype=np.float32)

    with replacing(path) as partial:
        version = anndata.settings.zarr_write_format
        root = zarr.open_group(partial, mode="w", zarr_format=version)
        _write(cells, root, token_array, edges)
        zarr.consolidate_metadata(root.store)


def to_anndata(cells: Source, **edges: Any) -> Any:
    """The AnnData that `write_h5ad` writes, whole in memory."""
    anndata = optional("anndata", "anndata")
    tokens: list[np.ndarray] = []
    parts = _parts(cells, tokens.append, edges)
    return anndata.AnnData(np.concatenate(tokens) if tokens else None, **parts)


def _write(
    cells: Source, root: Any, token_array: Callable[[Any, int], Any], edges: dict[str, Any]
) -> None:
    write_elem = optional("anndata.io", "anndata").write_elem

    def append(tokens: np.ndarray) -> None:
        x = root["X"] if "X" in root else token_array(root, tokens.shape[1])
        end = x.shape[0] + len(tokens)
        x.resize((end, tokens.shape[1]))
        x[end - len(tokens) : end] = tokens

    root.attrs.update(_ROOT)
    for name, part in _parts(cells, append, edges).items():
        write_elem(root, name, part)
    if "X" in root:
        root["X"].attrs.update(_ARRAY)


def _parts(
    cells: Source, append: Callable[[np.ndarray], object], edges: dict[str, Any]
) -> dict[str, Any]:
    """All of an AnnData but for X, which goes to `append` piece by piece."""
    head, tables = opened(cells)
    rows, probabilities = [], []
    empty = pa.RecordBatch.from_pylist([], head.table.schema)
    for batch in itertools.chain([empty], regrouped(tables, _ROWS)):
        rows.append(pa.RecordBatch.from_pydict(scalars(batch, head)))
        if "token" in batch.schema.names:
            width = batch.schema.field("token").type.list_size
            append(batch["token"].flatten().to_numpy().reshape(-1, width))
        if "probabilities" in batch.schema.names and len(batch):
            probabilities.append(batch["probabilities"].flatten().to_numpy())
    table = pa.Table.from_batches(rows)
    classes = completed(head.classes, table["type"].unique().to_pylist())
    position = np.stack([table["centroid_x"], table["centroid_y"]], axis=1)
    obsm, uns = {"spatial": position}, _uns(classes, head.mpp)
    if probabilities:
        obsm["probabilities"] = np.concatenate(probabilities).reshape(len(table), -1)
        ids = range(obsm["probabilities"].shape[1])
        named = completed({0: ("Background", (0, 0, 0))} | classes, ids)
        uns["probabilities"] = np.array([named[c][0] for c in ids], object)
    obsp = _obsp(position, head.mpp, edges)
    return {"obs": _obs(table, classes), "var": _var(head), "obsm": obsm, "obsp": obsp, "uns": uns}


def _obs(table: pa.Table, classes: Classes) -> Any:
    pandas = optional("pandas", "anndata")
    columns = {name: table[name].to_numpy() for name in table.schema.names}
    names = _distinct_names(classes)
    codes = pc.index_in(table["type_name"], pa.array(names, pa.string())).to_numpy()
    columns["type_name"] = pandas.Categorical.from_codes(codes, names)
    return pandas.DataFrame(columns, index=columns["id"].astype(str))


def _var(head: Cells) -> Any:
    pandas = optional("pandas", "anndata")
    tokens = "token" in head.table.schema.names
    width = head.table.schema.field("token").type.list_size if tokens else 0
    return pandas.DataFrame(index=pandas.Index([f"token_{i}" for i in range(width)], dtype=object))


def _uns(classes: Classes, mpp: float | None) -> dict[str, Any]:
    colours = {name: "#{:02x}{:02x}{:02x}".format(*rgb) for name, rgb in reversed(classes.values())}
    of_types = [colours[name] for name in _distinct_names(classes)]
    keys = {f"{part}_key": f"spatial_{part}" for part in ("connectivities", "distances")}
    return {
        "type_name_colors": np.array(of_types, object),
        "spatial_neighbors": keys,
        **({} if mpp is None else {"mpp": mpp}),
    }


def _distinct_names(classes: Classes) -> list[str]:
    return list(dict.fromkeys(name for name, _ in classes.values()))


def _obsp(position: np.ndarray, mpp: float | None, options: dict[str, Any]) -> dict[str, Any]:
    once, lengths = graph.edges(position, mpp, **options)
    places = tuple(np.concatenate([once, once[:, ::-1]]).T)
    shape = (len(position), len(position))
    distances = csr_matrix((np.tile(np.float32(lengths), 2), places), shape)
    connectivities = distances.copy()
    connectivities.data[:] = 1
    return {"spatial_connectivities": connectivities, "spatial_distances": distances}
