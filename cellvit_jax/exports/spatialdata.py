"""Cells as SpatialData (Zarr) for the scverse's spatial tools; needs the extra `spatialdata`.

One element of shapes, "cells": a valid corner-based polygon a cell, in level-0 pixels, under the
cell's id. One table, "table": the AnnData of `exports.anndata`, which annotates these shapes.
An empty result is the table alone. Unlike the other formats it is made in memory whole.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from cellvit_jax.cells.table import Cells
from cellvit_jax.errors import optional
from cellvit_jax.exports import outlines
from cellvit_jax.exports.anndata import to_anndata
from cellvit_jax.exports.blocks import Source
from cellvit_jax.files import replacing

_REGION = "cells"


def write(cells: Source, path: str | os.PathLike[str], **edges: Any) -> None:
    """Write `cells` to a folder; `edges`: see `graph.edges`.

    Raises InputError, OutputError, MissingExtraError.
    """
    spatialdata = optional("spatialdata", "spatialdata")
    polygons: list[np.ndarray] = []
    table = to_anndata(_seen(cells, polygons), **edges)
    data = spatialdata.SpatialData(**_elements(table, np.concatenate(polygons)))
    with replacing(path) as partial, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "zarr v3 autosharding")  # of how it calls AnnData
        data.write(partial)


def _elements(table: Any, polygons: np.ndarray) -> dict[str, dict[str, Any]]:
    models = optional("spatialdata.models", "spatialdata")
    if not len(polygons):  # it knows no element without shapes
        return {"tables": {"table": models.TableModel.parse(table)}}
    ids = table.obs["id"].to_numpy()
    table.obs["region"] = optional("pandas", "anndata").Categorical([_REGION] * len(ids))
    keys = {"region": _REGION, "region_key": "region", "instance_key": "id"}
    frame = optional("geopandas", "anndata").GeoDataFrame(geometry=polygons, index=ids)
    return {
        "shapes": {_REGION: models.ShapesModel.parse(frame)},
        "tables": {"table": models.TableModel.parse(table, **keys)},
    }


def _seen(cells: Source, polygons: list[np.ndarray]) -> Iterator[Cells]:
    """The blocks, whose outlines are put by."""
    blocks: Iterable[Cells] = [cells] if isinstance(cells, Cells) else cells
    for block in blocks:
        contours = block.table["contour"].combine_chunks()
        assert isinstance(contours, pa.ListArray)
        polygons.append(outlines.valid_polygons(contours))
        yield block
