"""One tile: network maps in, instance map and cells out."""

from __future__ import annotations

import numpy as np

from cellvit_jax.cells.measure import measure, numbered
from cellvit_jax.cells.planes import Planes
from cellvit_jax.cells.table import Cells
from cellvit_jax.cells.watershed import instances


def extract_cells(
    binary: np.ndarray,
    hv: np.ndarray,
    types: np.ndarray,
    *,
    probabilities: np.ndarray | None = None,
    tokens: np.ndarray | None = None,
    normalise: str = "tile",
) -> tuple[np.ndarray, Cells]:
    """Instance map int32 (H, W) and `Cells` of one tile of 16x16 pixels or more.

    `binary` (H, W): 1 = nucleus, 0 = not. `hv` float (H, W, 2): x, then y distance, raw. `types`
    (H, W): class ids up to 255, 0 = background. `probabilities` (H, W, C), floats or uint8 in
    255ths: averaged over the pixels of every cell. `tokens` float (h, w, D), a grid over the tile:
    averaged over the token cells that a cell's box touches. `normalise`: "tile" or "fixed", see
    `edges`.

    Ids 1..N are the cells in the raster order of their first pixels. An instance without a pixel
    of any type but background, or with an outline of under three points, is no cell: the instance
    map keeps it, under an id above N. Raises `InputError` for maps that cannot be used.
    """
    planes = Planes.of(
        binary, hv, types, probabilities=probabilities, tokens=tokens, normalise=normalise
    )
    inst = instances(planes.binary, planes.edge)
    table, reported = measure(inst, planes)
    return _reported_first(inst, reported), Cells(numbered(table.filter(reported)))


def _reported_first(inst, reported):
    if reported.all():
        return inst
    ids = np.zeros(len(reported) + 1, np.int32)
    ids[1 + np.argsort(~reported, kind="stable")] = np.arange(1, len(ids))
    return ids[inst]
