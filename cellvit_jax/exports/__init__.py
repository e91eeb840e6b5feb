"""Results as files, one module per format; `write` picks it by the name of the file.

`labels.write` takes an instance map, `overlay.write` an image as well: they stand beside the table.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cellvit_jax.errors import InputError
from cellvit_jax.exports import anndata, cells_json, csv, geojson, graph, parquet, spatialdata
from cellvit_jax.exports.blocks import Source
from cellvit_jax.exports.parquet import iter_cells, read_cells

__all__ = ["iter_cells", "read_cells", "write"]

# the first ending that fits decides
_WRITERS: dict[str, Callable[..., None]] = {
    ".parquet": parquet.write,
    ".geojson": geojson.write,
    ".geojson.gz": geojson.write,
    "cell_detection.json": cells_json.write_detection,
    ".json": cells_json.write,
    ".csv": csv.write,
    ".h5ad": anndata.write_h5ad,
    ".spatialdata.zarr": spatialdata.write,
    ".zarr": anndata.write_zarr,
    "graph.npz": graph.write,
}


def write(cells: Source, path: str | os.PathLike[str], **options: Any) -> None:
    """Write `cells` to `path` in the format that its name ends in, replacing what is there.

    `cells` may come block by block, as an iterable of `Cells` with equal columns: they are written
    in memory that does not grow with their number, and the file is the same.

    `.parquet` (read again by `read_cells`), `.geojson` or `.geojson.gz` (QuPath), `.json` (CellViT;
    the short form if the name ends in `cell_detection.json`), `.csv`, `.h5ad` or `.zarr` (AnnData),
    `.spatialdata.zarr`, `graph.npz`. `options` go to the format's own `write`. Raises InputError
    for another ending, OutputError where it cannot be written, MissingExtraError where a format
    needs what is not installed.
    """
    name = Path(path).name.lower()
    for ending, writer in _WRITERS.items():
        if name.endswith(ending):
            return writer(cells, path, **options)
    raise InputError(f"no format is known for {path}; names end in {', '.join(_WRITERS)}")
