"""Whether two fields are the same."""

import numpy as np

from cellvit_jax.data import Sample


def assert_same(a: Sample, b: Sample) -> None:
    """Equal in everything but the name."""
    for name in ("image", "instances", "types", "points"):
        left, right = getattr(a, name), getattr(b, name)
        assert (left is None) == (right is None), name
        if left is not None:
            np.testing.assert_array_equal(left, right, err_msg=name)
            assert left.dtype == right.dtype
    assert a.tissue == b.tissue


def assert_same_nuclei(a: np.ndarray, b: np.ndarray) -> None:
    """Two label images that differ in nothing but the numbers of their nuclei."""
    pairs = np.unique(np.stack([a.ravel(), b.ravel()]), axis=1)
    assert pairs.shape[1] == len(np.unique(a)) == len(np.unique(b))
    np.testing.assert_array_equal(a > 0, b > 0)
