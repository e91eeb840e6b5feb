import cv2
import numpy as np
import pytest

from cellvit_jax.cells import edges
from cellvit_jax.cells.energy import DERIVE, FULL_STEP, RADIUS, SMOOTH, _slope
from cellvit_jax.errors import InputError
from tests.cells.records import record


@pytest.mark.parametrize(
    ("down", "across", "d"), [(SMOOTH, DERIVE, (1, 0)), (DERIVE, SMOOTH, (0, 1))]
)
@pytest.mark.parametrize("shape", [(16, 16), (16, 40), (100, 33)])
def test_slope_is_sobel(shape, down, across, d):
    plane = np.random.default_rng(0).random(shape, np.float32)
    expected = cv2.Sobel(plane, cv2.CV_64F, *d, ksize=2 * RADIUS + 1)
    np.testing.assert_allclose(
        _slope(plane, down, across), expected, rtol=0, atol=1e-15 * FULL_STEP
    )


def test_full_step():
    step = np.repeat(np.float32([0, 1]), 30) * np.ones((60, 1), np.float32)
    assert _slope(step, SMOOTH, DERIVE).max() == FULL_STEP


@pytest.mark.parametrize("normalise", ["tile", "fixed"])
def test_range_and_resolution(normalise):
    edge = edges(record("noisy-512").hv, normalise)
    assert edge.dtype == np.float32
    assert edge.min() >= -1e-6
    assert edge.max() <= 1 + 1e-6
    np.testing.assert_array_equal(edge * 2**24 % 1, 0)  # what the integer flood relies on


def test_fixed_is_local():
    hv = record("noisy-512").hv
    inner = slice(RADIUS, -RADIUS)
    part = edges(np.ascontiguousarray(hv[100:260, 37:301]), "fixed")[inner, inner]
    whole = edges(hv, "fixed")[100:260, 37:301][inner, inner]
    np.testing.assert_array_equal(part, whole)


@pytest.mark.parametrize(("slope", "marker"), [(0.02, True), (0, True), (-0.02, False)])
def test_fixed_edges_are_where_distances_fall(slope, marker):
    x = slope * (np.arange(64, dtype=np.float32) - 32) * np.ones((64, 1), np.float32)
    edge = edges(np.stack([x, 0 * x], -1), "fixed")[RADIUS:-RADIUS, RADIUS:-RADIUS]
    assert ((edge < np.float32(0.4)) == marker).all()


def test_constant_tile_has_no_slopes():
    assert (edges(np.zeros((32, 32, 2), np.float32), "tile") == 1).all()


def test_unknown_normalisation():
    with pytest.raises(InputError, match="'tile', 'fixed'"):
        edges(np.zeros((32, 32, 2), np.float32), "slide")
