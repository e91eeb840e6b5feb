"""Cells drawn again: what changes, what stays, and that none is lost."""

import cv2
import numpy as np
import pytest

import cellvit_jax as cj
from cellvit_jax.cells import Cells, stain
from cellvit_jax.cells.redraw import boxes, drawn
from cellvit_jax.errors import InputError
from cellvit_jax.inference import PromptPredictor, refine
from cellvit_jax.inference.refine import windows
from cellvit_jax.slides import ImageSlide
from tests.networks import small_sam

SIZE = (150, 170)
KEPT = ("id", "type", "type_prob", "probabilities")


class Drawer(PromptPredictor):
    """Answers with what a picture of logits shows: the network's part is tested elsewhere."""

    def __init__(self, logits: np.ndarray):
        super().__init__(small_sam())
        self.logits, self.seen = logits, []

    def set_image(self, image):
        self.seen.append(image.shape)
        super().set_image(image)
        r, c = np.argwhere((PIXELS[..., 0] == image[0, 0, 0]) & (PIXELS[..., 1] == image[0, 0, 1]))[
            0
        ]
        part = self.logits[r : r + image.shape[0], c : c + image.shape[1]]
        size = self.frame.columns // 4, self.frame.rows // 4
        self.low = cv2.resize(part, size, interpolation=cv2.INTER_AREA)

    def answer(self, *, boxes):
        square = np.full((16, 16), -5.0, np.float32)
        square[: self.low.shape[0], : self.low.shape[1]] = self.low
        return np.broadcast_to(square, (len(boxes), 1, 16, 16)), np.ones((len(boxes), 1))


# every pixel says where it is
PIXELS = np.stack([*np.indices(SIZE), np.zeros(SIZE)], axis=-1).astype(np.uint8)
IMAGE = ImageSlide("places", PIXELS, 0.25)


def discs(*circles: tuple[int, int, int]) -> np.ndarray:
    """Whether a pixel is in one of the circles (x, y, radius)."""
    canvas = np.zeros(SIZE, np.uint8)
    for x, y, radius in circles:
        cv2.circle(canvas, (x, y), radius, 1, cv2.FILLED)
    return canvas > 0


def cells_of(mask: np.ndarray) -> Cells:
    """Cells as a network finds them in a mask of round nuclei."""
    hv = np.zeros((*SIZE, 2), np.float32)
    count, parts = cv2.connectedComponents(mask.astype(np.uint8))
    for i in range(1, count):
        rows, columns = np.nonzero(parts == i)
        hv[rows, columns, 0] = (columns - columns.mean()) / np.ptp(columns)
        hv[rows, columns, 1] = (rows - rows.mean()) / np.ptp(rows)
    probabilities = np.stack([~mask, mask], -1).astype(np.float32)
    types = mask.astype(np.uint8)
    _, cells = cj.extract_cells(mask, hv, types, probabilities=probabilities)
    return cells


CIRCLES = ((30, 30, 9), (80, 40, 10), (60, 110, 8), (140, 120, 9))
CELLS = cells_of(discs(*CIRCLES))


def logits(mask: np.ndarray) -> np.ndarray:
    return np.where(mask, 5.0, -5.0).astype(np.float32)


def check(found, before: Cells) -> None:
    """What holds whatever the network draws."""
    assert len(found.cells) == len(before)
    for name in KEPT:
        assert found.cells.table[name].equals(before.table[name]), name
    assert set(np.unique(found.instances)) - {0} == set(before.column("id"))
    for row in found.cells.table.to_pylist():
        rows, columns = np.nonzero(found.instances == row["id"])
        assert (rows.min(), rows.max() + 1) == (row["bbox_r0"], row["bbox_r1"])
        assert (columns.min(), columns.max() + 1) == (row["bbox_c0"], row["bbox_c1"])
        if row["refined"]:
            assert row["area"] == len(rows)
            assert columns.mean() == pytest.approx(row["centroid_x"])
    old = found.cells.table.filter(~found.cells.column("refined"))
    for name in ("contour", "area", "centroid_x"):
        assert old[name].equals(before.table.filter(~found.cells.column("refined"))[name])


def test_larger_nuclei_are_drawn_larger():
    larger = [(x, y, radius + 3) for x, y, radius in CIRCLES]
    found = refine(IMAGE, CELLS, Drawer(logits(discs(*larger))))
    check(found, CELLS)
    assert found.cells.column("refined").all()
    assert (found.cells.column("area") > 1.2 * CELLS.column("area")).all()
    assert found.cells.mpp == CELLS.mpp


def test_haematoxylin_is_measured_in_the_new_outlines():
    before = CELLS.replace_columns(**stain(PIXELS, drawn(CELLS, SIZE), len(CELLS)))
    found = refine(IMAGE, before, Drawer(logits(discs((30, 30, 11), (60, 110, 10)))))
    inside = stain(PIXELS, found.instances.astype(int), len(before))
    refined = found.cells.column("refined")
    assert 0 < refined.sum() < len(refined)
    for name, values in inside.items():
        expected = np.where(refined, values, before.column(name))
        np.testing.assert_array_equal(found.cells.column(name), expected)


def test_nothing_and_nonsense_keep_the_old_outlines():
    everything = logits(np.ones(SIZE, bool))
    for answer in (-everything, everything, logits(discs((30, 30, 2)))):
        found = refine(IMAGE, CELLS, Drawer(answer))
        check(found, CELLS)
        assert not found.cells.column("refined").any()
        assert ((found.instances > 0) == (drawn(CELLS, SIZE) > 0)).all()


def test_only_what_is_drawn_changes():
    found = refine(IMAGE, CELLS, Drawer(logits(discs((30, 30, 11), (60, 110, 10)))))
    check(found, CELLS)
    there = {(int(x), int(y)) for x, y in ((30, 30), (60, 110))}
    for row in found.cells.table.to_pylist():
        place = round(row["centroid_x"]), round(row["centroid_y"])
        assert row["refined"] == (place in there)


def test_neighbours_never_overlap():
    cells = cells_of(discs((60, 60, 9), (82, 60, 9)))
    found = refine(IMAGE, cells, Drawer(logits(discs((60, 60, 16), (82, 60, 16)))))
    check(found, cells)


def test_windows_show_every_cell_whole():
    for side in (40, 64, 200):
        found = windows(CELLS, SIZE, side)
        rows = np.concatenate([window.rows for window in found])
        assert sorted(rows) == [*range(len(CELLS))]
        for window in found:
            r0, c0, r1, c1 = window.box
            assert 0 <= r0 < r1 <= SIZE[0]
            assert 0 <= c0 < c1 <= SIZE[1]
            assert max(r1 - r0, c1 - c0) <= side
            inner = boxes(CELLS)[window.rows]
            assert (inner[:, :2] >= (r0, c0)).all()
            assert (inner[:, 2:] <= (r1, c1)).all()


def test_a_cell_larger_than_the_window_keeps_its_outline():
    cells = cells_of(discs((80, 80, 40)))
    found = refine(IMAGE, cells, Drawer(logits(discs((80, 80, 42)))), window=32)
    check(found, cells)
    assert not found.cells.column("refined").any()


def test_no_cells_are_no_work():
    none = Cells(CELLS.table.slice(0, 0), CELLS.classes, CELLS.mpp)
    predictor = Drawer(logits(np.zeros(SIZE, bool)))
    found = refine(IMAGE, none, predictor)
    assert (len(found.cells), found.instances.any(), predictor.seen) == (0, False, [])
    assert "refined" in found.cells.table.column_names


def test_cells_of_a_real_network_survive_a_random_one():
    model = PromptPredictor(small_sam())
    seen = []
    found = refine(IMAGE, CELLS, model, track=lambda parts: seen.extend(parts) or parts)
    check(found, CELLS)
    assert len(seen) == len(windows(CELLS, SIZE, 64))


def test_cells_of_another_image_are_refused():
    small = ImageSlide("small", np.zeros((100, 100, 3), np.uint8), 0.25)
    with pytest.raises(InputError, match="these cells are not of small: they reach to 150 × "):
        refine(small, CELLS, PromptPredictor(small_sam()))
    with pytest.raises(InputError, match="16 pixels or more"):
        refine(IMAGE, CELLS, PromptPredictor(small_sam()), window=8)
