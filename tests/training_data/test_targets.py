import numpy as np
import pytest

from cellvit_jax.data.targets import hv_map, regression_map
from tests.shared import DATA


def test_hv_equals_the_recorded_targets():
    record = np.load(DATA / "targets" / "hv-nucls-256.npz")
    np.testing.assert_array_equal(hv_map(record["instances"]), record["hv"])


def two_nuclei() -> np.ndarray:
    instances = np.zeros((20, 30), np.int32)
    instances[2:9, 3:12] = 7
    instances[2:9, 12:20] = 3
    return instances


def test_hv_spans_every_nucleus_from_minus_one_to_one():
    instances = two_nuclei()
    hv = hv_map(instances)
    for nucleus in (3, 7):
        inside = hv[instances == nucleus]
        np.testing.assert_array_equal(inside.min(0), [-1, -1])
        np.testing.assert_array_equal(inside.max(0), [1, 1])
    assert not hv[instances == 0].any()


def test_hv_does_not_depend_on_ids_or_on_transposition():
    instances = two_nuclei()
    hv = hv_map(instances)
    np.testing.assert_array_equal(hv_map(instances * 1000), hv)
    np.testing.assert_array_equal(hv_map(instances.T), hv.transpose(1, 0, 2)[..., ::-1])


@pytest.mark.parametrize("targets", [hv_map, regression_map])
def test_an_empty_map_has_empty_targets(targets):
    assert not targets(np.zeros((16, 24), np.int32)).any()


def test_one_pixel_is_a_nucleus_too():
    instances = np.zeros((16, 16), np.int32)
    instances[4, 4] = 1
    assert np.isfinite(hv_map(instances)).all()


def test_regression_points_away_from_the_centre_of_mass():
    instances = two_nuclei()
    distance = regression_map(instances)
    for nucleus in (3, 7):
        np.testing.assert_allclose(distance[instances == nucleus].mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(distance[4, 5] - distance[4, 4], [1, 0])
