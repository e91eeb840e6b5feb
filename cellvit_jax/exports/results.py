"""`cellvit-jax export`: more files of a result, made from its `cells.parquet` at any later time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress

from cellvit_jax.cells.table import Cells
from cellvit_jax.errors import InputError, OutputError, optional
from cellvit_jax.exports import graph, write
from cellvit_jax.exports.parquet import count_cells, iter_cells

TABLE = "cells.parquet"
# what `--to` takes -> the file beside the table
FILES = {
    "geojson": "cells.geojson",
    "geojson.gz": "cells.geojson.gz",
    "json": "cells.json",
    "cell_detection.json": "cell_detection.json",
    "csv": "cells.csv",
    "h5ad": "cells.h5ad",
    "zarr": "cells.zarr",
    "spatialdata.zarr": "cells.spatialdata.zarr",
    "graph.npz": "graph.npz",
}
_GRAPHS = {"h5ad", "zarr", "spatialdata.zarr", "graph.npz"}  # files that hold the cell graph
_EXTRAS = {"h5ad": "anndata", "zarr": "anndata", "spatialdata.zarr": "spatialdata"}


def export(
    run: Path,
    kinds: Sequence[str],
    *,
    overwrite: bool = False,
    quiet: bool = False,
    **edges: Any,
) -> None:
    """Write the `kinds` of `FILES` beside every table in `run`, a result or a folder of results.

    Streamed by row groups. `edges`: see `graph.edges`. Raises `InputError` and `OutputError`
    before anything is written where that can be known by then, and MissingExtraError.
    """
    kinds = list(dict.fromkeys(kinds))
    if not kinds:
        raise InputError(f"say with --to what to write: {', '.join(FILES)}")
    folders = results(run)
    counts = {folder: count_cells(folder) for folder in folders}
    _check(folders, kinds, edges)
    there = [path for f in folders for kind in kinds if (path := f / FILES[kind]).exists()]
    if there and not overwrite:
        raise OutputError(f"{there[0]} is there already: give --overwrite to replace it")
    for folder, kind in ((folder, kind) for folder in folders for kind in kinds):
        path = folder / FILES[kind]
        blocks = _shown(iter_cells(folder), counts[folder], str(path), quiet)
        write(blocks, path, **(edges if kind in _GRAPHS else {}))
        if not quiet:
            print(f"{path}: {counts[folder]:,} cells")


def results(run: Path) -> list[Path]:
    """The folders with a `cells.parquet`: `run` itself, or those in it. Raises `InputError`."""
    if not run.is_dir():
        wrong = "is a file" if run.exists() else "does not exist"
        raise InputError(f"{run} {wrong}: give the folder of a result, or one that holds several")
    if (run / TABLE).is_file():
        return [run]
    found = sorted(path.parent for path in run.glob(f"[!.]*/{TABLE}"))
    if not found:
        raise InputError(f"{run} holds no {TABLE}, nor does a folder in it: nothing to export")
    return found


def _check(folders: list[Path], kinds: list[str], edges: dict[str, Any]) -> None:
    for kind in kinds:
        if kind in _EXTRAS:
            optional(_EXTRAS[kind], _EXTRAS[kind])
    if _GRAPHS & set(kinds):
        for folder in folders:
            graph.edges(np.zeros((0, 2)), next(iter_cells(folder)).mpp, **edges)


def _shown(blocks: Iterable[Cells], total: int, name: str, quiet: bool) -> Iterator[Cells]:
    console = Console(stderr=True)
    hidden = quiet or not console.is_terminal
    with Progress(console=console, disable=hidden, transient=True) as progress:
        task = progress.add_task(escape(name), total=total)
        for block in blocks:
            yield block
            progress.advance(task, len(block))
