"""One large set of maps as one piece and as tiles: the same cells."""

import numpy as np
import pytest
from scipy.spatial import KDTree

from cellvit_jax.cells import Cells, Planes, edges, joined, stitch
from cellvit_jax.inference.pipeline import rows
from cellvit_jax.inference.plan import planned
from cellvit_jax.inference.report import Report
from cellvit_jax.slides import ImageSlide, grid
from tests.cells.records import LARGE
from tests.cells.test_stitching import mosaic
from tests.inference.free import CARD, FreeNetwork

SIDE = 4096


class RecordedNetwork(FreeNetwork):
    """Answers with the maps under a tile; a pixel's colour is its place."""

    def __init__(self, maps):
        super().__init__()
        self.maps = maps

    def __call__(self, tiles):
        for tile in tiles:
            high, low = tile[..., :2].astype(int) * 16, tile[..., 2].astype(int)
            rows, cols = high[..., 0] + low // 16, high[..., 1] + low % 16
            binary, hv, types = (plane[rows, cols] for plane in self.maps)
            probabilities = np.zeros((*types.shape, 1), np.float16)
            yield {
                "binary": binary,
                "edge": edges(np.ascontiguousarray(hv), "fixed"),
                "types": types,
                "probabilities": probabilities,
            }


@pytest.fixture(scope="module")
def recorded():
    maps = mosaic(SIDE, LARGE)
    _, cells = stitch(Planes.of(*maps))
    return maps, cells


@pytest.fixture(scope="module")
def places():
    rows, cols = np.mgrid[:SIDE, :SIDE].astype(np.uint16)
    return np.stack([rows // 16, cols // 16, rows % 16 * 16 + cols % 16], -1).astype(np.uint8)


def agreement(one: Cells, other: Cells) -> float:
    """F1 of pairs of cells that are each other's nearest, at most a pixel apart.

    `metrics.detection` weighs all pairs against each other: too many for a slide's cells.
    """
    a, b = (np.stack([c.column("centroid_x"), c.column("centroid_y")], 1) for c in (one, other))
    distance, there = KDTree(b).query(a)
    _, back = KDTree(a).query(b)
    pairs = (distance <= 1) & (back[there] == np.arange(len(a)))
    return 2 * pairs.sum() / (len(a) + len(b))


@pytest.mark.slow
@pytest.mark.parametrize("overlap", [32, 64, 128])
@pytest.mark.parametrize("tile", [256, 512, 1024])
def test_tiles_of_any_size_and_overlap(recorded, places, tile, overlap, monkeypatch):
    maps, whole = recorded
    monkeypatch.setattr(
        "cellvit_jax.inference.plan.grid", lambda size, side, _: grid(size, side, overlap // 2)
    )
    plan = planned(ImageSlide("places", places, 0.25), CARD, tile=tile)
    found = rows(plan, RecordedNetwork(maps), Report("places"))
    cells = Cells(joined(row.table for row in found))
    assert agreement(whole, cells) >= 0.999
    # no pixel has two cells: areas add up to no more than the mask
    assert cells.column("area").sum() <= maps[0].sum()
