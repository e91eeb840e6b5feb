"""Cells as CellViT writes them: `cells.json`, and the shorter `cell_detection.json`.

Level-0 pixels, contours through pixel centres. The fields that told CellViT how a cell lay to the
seams of its tiles have no meaning where nothing is cut at a seam; so that programs which look for
them go on working, they are constants: `patch_coordinates` and `offset_global` [0, 0],
`cell_status` 0 (inside a tile), `edge_position` false.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from cellvit_jax.exports import outlines
from cellvit_jax.exports.blocks import Source, opened, regrouped, uncollected
from cellvit_jax.exports.classes import completed
from cellvit_jax.files import atomic_open

_ROWS = 8_192  # cells that are Python objects at one time
_SEAM_FIELDS = {
    "patch_coordinates": [0, 0],
    "cell_status": 0,
    "offset_global": [0, 0],
    "edge_position": False,
}


def write(
    cells: Source, path: str | os.PathLike[str], metadata: Mapping[str, Any] | None = None
) -> None:
    """Write `cells.json`. Raises OutputError.

    `metadata` becomes the file's `wsi_metadata`, beside `base_mpp` where the resolution is known.
    """
    _write(cells, path, metadata, _with_contour)


def write_detection(
    cells: Source, path: str | os.PathLike[str], metadata: Mapping[str, Any] | None = None
) -> None:
    """Write `cell_detection.json`: as `write`, but each cell is box, centroid and type only."""
    _write(cells, path, metadata, _located)


def _write(
    cells: Source,
    path: str | os.PathLike[str],
    metadata: Mapping[str, Any] | None,
    rows: Callable[[pa.RecordBatch], Iterable[dict[str, Any]]],
) -> None:
    head, tables = opened(cells)
    resolution = {} if head.mpp is None else {"base_mpp": head.mpp}
    types: set[int] = set()
    with atomic_open(path) as out:
        out.write(b'{"wsi_metadata":' + orjson.dumps({**resolution, **(metadata or {})}))
        out.write(b',"cells":[')
        separator = b"\n"
        for batch in regrouped(tables, _ROWS):
            with uncollected():
                out.write(separator + b",\n".join(map(orjson.dumps, rows(batch))))
            separator = b",\n"
            types |= set(batch["type"].unique().to_pylist())
        # after the cells: only now are the types known that have no name
        names = {str(c): name for c, (name, _) in completed(head.classes, types).items()}
        out.write(b'\n],"type_map":' + orjson.dumps(names) + b"}\n")


def _located(batch: pa.RecordBatch) -> Iterator[dict[str, Any]]:
    corners = np.stack([batch[f"bbox_{name}"] for name in ("r0", "c0", "r1", "c1")], axis=1)
    centroids = np.stack([batch["centroid_x"], batch["centroid_y"]], axis=1)
    columns = corners.reshape(-1, 2, 2).tolist(), centroids.tolist(), batch["type"].to_pylist()
    for bbox, centroid, type_ in zip(*columns, strict=True):
        yield {"bbox": bbox, "centroid": centroid, "type": type_}


def _with_contour(batch: pa.RecordBatch) -> Iterator[dict[str, Any]]:
    points, starts = outlines.split(batch["contour"])
    whole = np.rint(points)
    # whole pixels are integers in CellViT's files, and some readers index with them
    places = (whole.astype(int) if np.array_equal(whole, points) else points.astype(float)).tolist()
    type_probs = batch["type_prob"].to_numpy().astype(np.float64).round(6).tolist()
    rows = zip(_located(batch), itertools.pairwise(starts), type_probs, strict=True)
    for cell, (start, end), type_prob in rows:
        yield cell | {"contour": places[start:end], "type_prob": type_prob} | _SEAM_FIELDS
