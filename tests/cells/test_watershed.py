"""The flood and what leads to it, against scikit-image and SciPy-like plain recipes."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage.segmentation import watershed

from benchmarks.plain import flood_inputs
from cellvit_jax.cells import edges, instances
from cellvit_jax.cells.flood import OPEN, flood
from cellvit_jax.cells.watershed import filled, renumber
from tests.cells.records import LARGE, SMALL, record, same_partition


def flooded(image, markers, mask):
    """`flood` under the interface of `skimage.segmentation.watershed`."""
    count, parts = cv2.connectedComponents(mask.astype(np.uint8), connectivity=4)
    labels = np.where(mask, np.where(markers > 0, markers, OPEN), 0).astype(np.int32)
    flood(labels, -np.asarray(image, np.int32), parts, count - 1)
    return np.maximum(labels, 0)


def test_plateaus_and_passes():
    image = np.array([[0, 5, 1, 1, 3, 5, 0]])
    markers = np.array([[1, 0, 0, 0, 0, 0, 2]])
    labels = flooded(image, markers, np.ones_like(image, bool))
    np.testing.assert_array_equal(labels, [[1, 1, 1, 1, 2, 2, 2]])


@given(st.integers(0, 2**32 - 1), st.integers(2, 24), st.integers(2, 24), st.integers(1, 12))
def test_as_scikit_image(seed, height, width, count):
    rng = np.random.default_rng(seed)
    image = rng.permutation(height * width).reshape(height, width)
    markers = np.zeros((height, width), np.int32)
    markers.flat[rng.integers(0, image.size, count)] = rng.integers(1, 6, count)
    mask = rng.random((height, width)) < rng.uniform(0.3, 1)
    expected = watershed(image, markers, mask=mask)
    np.testing.assert_array_equal(flooded(image, markers, mask), expected)


@given(st.integers(0, 2**32 - 1))
def test_ties_go_by_age(seed):
    """Few levels: nearly everything is decided by the order of arrival."""
    rng = np.random.default_rng(seed)
    image = rng.integers(10, 13, (20, 20))
    markers = np.zeros((20, 20), np.int32)
    at = rng.choice(400, 5, replace=False)
    markers.flat[at] = np.arange(1, 6)
    image.flat[at] = np.arange(5)  # which of two equal markers comes first is left open
    expected = watershed(image, markers, mask=np.ones((20, 20), bool))
    np.testing.assert_array_equal(flooded(image, markers, np.ones((20, 20), bool)), expected)


@pytest.mark.parametrize("name", SMALL + LARGE)
@pytest.mark.parametrize("normalise", ["tile", "fixed"])
def test_instances_as_plain_recipe(name, normalise):
    binary, hv, _ = record(name).maps
    edge = edges(hv, normalise)
    energy, markers, mask = flood_inputs(binary, edge)
    assert same_partition(instances(binary, edge), watershed(energy, markers, mask=mask))


@given(st.integers(0, 2**32 - 1), st.floats(0.3, 0.9))
def test_filled(seed, density):
    mask = (np.random.default_rng(seed).random((12, 15)) < density).astype(np.uint8)
    _, background = cv2.connectedComponents(1 - np.pad(mask, 1), connectivity=4)
    expected = (background != background[0, 0])[1:-1, 1:-1]
    np.testing.assert_array_equal(filled(np.pad(mask, 1)), expected)


def test_renumber():
    labels = np.array([[0, 7, 7], [3, 0, 7], [3, 5, 5]], np.int32)
    ids = renumber(labels, 8)
    np.testing.assert_array_equal(labels, [[0, 1, 1], [2, 0, 1], [2, 3, 3]])
    np.testing.assert_array_equal(ids, [0, 0, 0, 2, 0, 3, 0, 1, 0])
