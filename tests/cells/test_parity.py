"""The recorded tiles: the same partition, and the same cells to the last digit."""

import numpy as np
import pytest

from cellvit_jax.cells import extract_cells
from tests.cells.records import LARGE, SMALL, record, same_partition

pytestmark = pytest.mark.parametrize("name", SMALL + LARGE)


def as_recorded(row):
    return {
        "bbox": [[row["bbox_r0"], row["bbox_c0"]], [row["bbox_r1"], row["bbox_c1"]]],
        "centroid": [row["centroid_x"], row["centroid_y"]],
        "contour": row["contour"],
        "type": row["type"],
        "type_prob": row["type_prob"],
    }


def test_partition(name):
    expected = record(name)
    inst, _ = extract_cells(*expected.maps)
    assert inst.dtype == np.int32
    assert same_partition(inst, expected.instances)


def test_cells(name):
    expected = record(name)
    _, cells = extract_cells(*expected.maps)
    found = {tuple(row["contour"][0]): row for row in cells.table.to_pylist()}
    for cell in expected.cells:
        recorded = {k: v for k, v in cell.items() if k != "id"}
        recorded["type_prob"] = np.float32(recorded["type_prob"])
        assert as_recorded(found[tuple(cell["contour"][0])]) == recorded


def test_count(name):
    expected = record(name)
    _, cells = extract_cells(*expected.maps)
    # The original loses the first cell of a tile without any background pixel.
    lost = int((expected.instances > 0).all())
    assert len(cells) == len(expected.cells) + lost
