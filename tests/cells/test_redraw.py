import cv2
import numpy as np

import cellvit_jax as cj
from cellvit_jax.cells import shapes
from cellvit_jax.cells.redraw import BOX, boxes, drawn, redrawn

SIZE = (60, 70)


def mask(radius: int) -> np.ndarray:
    canvas = np.zeros(SIZE, np.uint8)
    for x in (15, 50):
        cv2.circle(canvas, (x, 30), radius, 1, cv2.FILLED)
    return canvas


def cells_of(binary: np.ndarray):
    across = (np.indices(SIZE) - np.array([30, 15]).reshape(2, 1, 1)) / 30
    hv = np.where(binary[..., None] > 0, np.moveaxis(across[::-1], 0, -1), 0).astype(np.float32)
    return cj.extract_cells(binary, hv, binary, normalise="fixed")[1]


CELLS = cells_of(mask(8))


def test_drawn_cells_are_their_outlines():
    labels = drawn(CELLS, SIZE)
    np.testing.assert_array_equal(labels > 0, mask(8) > 0)
    for row, (r0, c0, r1, c1) in enumerate(boxes(CELLS)):
        assert set(np.unique(labels[r0:r1, c0:c1])) == {0, row + 1}
        assert (labels == row + 1).sum() == CELLS.column("area")[row]


def test_a_cell_in_anothers_hole_stays_visible():
    ring = mask(12)
    cv2.circle(ring, (15, 30), 7, 0, cv2.FILLED)
    cv2.circle(ring, (15, 30), 3, 1, cv2.FILLED)
    labels = drawn(cells := cells_of(ring), SIZE)
    assert len(set(np.unique(labels)) - {0}) == len(cells)


def test_only_changed_cells_are_measured_anew():
    labels = drawn(cells_of(mask(11)), SIZE)
    found, there = redrawn(CELLS, labels, np.array([True, False]))
    larger = cells_of(mask(11))
    assert there.all()
    for name in ("centroid_x", "area", *BOX):
        assert found.column(name)[0] == larger.column(name)[0]
        assert found.column(name)[1] == CELLS.column(name)[1]
    assert found.table["contour"][0] == larger.table["contour"][0]
    assert found.table["type_prob"].equals(CELLS.table["type_prob"])


def test_shapes_follow_where_they_are_known():
    measured = CELLS.replace_columns(**shapes(drawn(CELLS, SIZE), len(CELLS)))
    labels = drawn(cells_of(mask(11)), SIZE)
    found, _ = redrawn(measured, labels, np.array([True, False]))
    perimeter = shapes(labels, len(CELLS))["perimeter"]
    assert found.column("perimeter")[0] == perimeter[0] > measured.column("perimeter")[0]
    assert found.column("perimeter")[1] == measured.column("perimeter")[1]


def test_a_cell_that_is_not_drawn_keeps_its_geometry():
    labels = np.where(drawn(CELLS, SIZE) == 1, 1, 0).astype(np.int32)
    found, there = redrawn(CELLS, labels, np.array([True, True]))
    assert there.tolist() == [True, False]
    assert found.table["contour"].equals(CELLS.table["contour"])
