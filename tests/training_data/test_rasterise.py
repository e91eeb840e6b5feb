import cv2
import hypothesis
import numpy as np
import shapely
from hypothesis import strategies

from cellvit_jax.data.rasterise import label_image, valid


@hypothesis.given(seed=strategies.integers(0, 2**32 - 1))
def test_outlines_through_the_middles_of_pixels_give_back_the_pixels(seed):
    rng = np.random.default_rng(seed)
    noise = cv2.GaussianBlur(rng.random((40, 56)), (0, 0), 3)
    mask = (noise > np.quantile(noise, 0.7)).astype(np.uint8)
    mask = cv2.morphologyEx(mask, cv2.MORPH_OPEN, np.ones((3, 3)))
    found, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    shapes = np.array([shapely.Polygon(c[:, 0] + 0.5) for c in found], object)
    filled = cv2.drawContours(np.zeros_like(mask), found, -1, 1, cv2.FILLED)
    np.testing.assert_array_equal(label_image(valid(shapes), mask.shape) > 0, filled > 0)


def test_outlines_along_the_sides_of_pixels_give_back_the_pixels():
    labels = label_image(np.array([shapely.box(3, 2, 9, 5)]), (8, 12))
    assert np.argwhere(labels).min(0).tolist() == [2, 3]
    assert np.argwhere(labels).max(0).tolist() == [4, 8]
    assert (labels > 0).sum() == 18


def test_what_lies_outside_is_cut_off():
    shapes = np.array([shapely.box(-5, -5, 3, 3), shapely.box(20, 20, 30, 30)], object)
    labels = label_image(shapes, (8, 12))
    assert (labels == 1).sum() == 9
    assert not (labels == 2).any()


def test_holes_stay_open_and_pieces_are_one():
    ring = shapely.box(0, 0, 9, 9) - shapely.box(3, 3, 6, 6)
    two = shapely.MultiPolygon([shapely.box(10, 0, 12, 2), shapely.box(14, 0, 16, 2)])
    labels = label_image(np.array([ring, two], object), (10, 20))
    assert labels[4, 4] == 0
    assert ((labels == 1).sum(), (labels == 2).sum()) == (72, 8)


def test_a_crossed_outline_is_repaired_and_one_without_area_is_nothing():
    bow = shapely.Polygon([(0, 0), (10, 10), (10, 0), (0, 10)])
    line = shapely.Polygon([(0, 0), (5, 5), (9, 9)])
    labels = label_image(valid(np.array([bow, line], object)), (10, 10))
    assert labels[5, 1] == labels[5, 8] == 1
    assert labels[1, 5] == 0
    assert not (labels == 2).any()


def test_no_shapes_are_an_empty_map():
    assert not label_image(valid(np.array([], object)), (4, 6)).any()
