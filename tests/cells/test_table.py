import numpy as np
import pytest

from cellvit_jax.cells import Cells, extract_cells
from tests.cells.records import boxes, record


@pytest.fixture(scope="module")
def cells():
    _, cells = extract_cells(*record("nucls-256-0").maps)
    return Cells(cells.table, mpp=0.25)


def contours(cells):
    return [np.array(points) for points in cells.table["contour"].to_pylist()]


def test_unscaled(cells):
    assert cells.scaled(1, 1).table.equals(cells.table)


@pytest.mark.parametrize(("sx", "sy"), [(2, 2), (0.5, 0.5), (1.13, 0.87)])
def test_scaled(cells, sx, sy):
    scaled = cells.scaled(sx, sy)
    assert scaled.table.schema == cells.table.schema
    np.testing.assert_allclose(
        scaled.column("centroid_x"), (cells.column("centroid_x") + 0.5) * sx - 0.5
    )
    np.testing.assert_allclose(scaled.column("area"), cells.column("area") * sx * sy)
    for before, after in zip(contours(cells), contours(scaled), strict=True):
        np.testing.assert_allclose(after, (before + 0.5) * [sx, sy] - 0.5, rtol=1e-5, atol=1e-5)
    assert scaled.mpp == pytest.approx(0.25 / np.sqrt(sx * sy))


def test_scaled_boxes_hold_their_cells(cells):
    scaled = cells.scaled(1.37, 0.61)
    for points, (r0, c0, r1, c1) in zip(contours(scaled), boxes(scaled), strict=True):
        assert points.min(0)[0] >= c0 - 0.5
        assert points.min(0)[1] >= r0 - 0.5
        assert points.max(0)[0] <= c1 - 0.5
        assert points.max(0)[1] <= r1 - 0.5


def test_scaled_slice(cells):
    part = Cells(cells.table.slice(3, 5)).scaled(2, 2)
    whole = cells.scaled(2, 2).table.slice(3, 5)
    assert part.table.to_pylist() == whole.to_pylist()
    assert part.mpp is None


def test_scaled_measurements(cells):
    measured = cells.replace_columns(perimeter=np.arange(len(cells), dtype=np.float32))
    perimeter = measured.scaled(2, 8).column("perimeter")
    np.testing.assert_allclose(perimeter, 4 * np.arange(len(cells)))
    assert perimeter.dtype == np.float32


def test_scaled_none():
    _, none = extract_cells(
        np.zeros((16, 16), np.uint8), np.zeros((16, 16, 2), "f4"), np.zeros((16, 16), np.uint8)
    )
    assert len(none.scaled(3, 3)) == 0
