import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellvit_jax.cells import shapes
from tests.cells.records import SMALL, record
from tests.cells.test_contours import labelled

measure = pytest.importorskip("skimage.measure")
COLUMNS = ("perimeter", "eccentricity", "solidity")


def as_skimage(instances):
    properties = measure.regionprops_table(instances, properties=COLUMNS)
    return [properties[name] for name in COLUMNS]


def compare(instances):
    found = shapes(instances, int(instances.max()))
    assert tuple(found) == COLUMNS
    for name, expected in zip(COLUMNS, as_skimage(instances.astype(np.int32)), strict=True):
        assert found[name].dtype == np.float32
        np.testing.assert_allclose(found[name], expected, rtol=2e-7, atol=2e-7, err_msg=name)


@pytest.mark.parametrize("name", SMALL)
def test_recorded_nuclei_measure_as_in_scikit_image(name):
    compare(record(name).instances)


@settings(max_examples=40)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 20),
    st.integers(1, 20),
    st.integers(1, 4),
    st.floats(0.1, 1),
)
def test_anything_measures_as_in_scikit_image(seed, height, width, count, density):
    """Pieces, holes, single pixels, lines."""
    compare(labelled(np.random.default_rng(seed), (height, width), count, density))


def test_ids_beyond_the_count_are_left_out_and_absent_ones_are_nan():
    instances = np.zeros((9, 9), np.uint32)
    instances[1:4, 1:4], instances[5:8, 5:8] = 2, 7
    found = shapes(instances, 3)["perimeter"]
    np.testing.assert_array_equal(found, [np.nan, 8, np.nan])


def test_none():
    assert all(len(column) == 0 for column in shapes(np.zeros((5, 5), np.int32), 0).values())
