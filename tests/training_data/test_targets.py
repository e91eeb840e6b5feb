import numpy as np
import pytest

from cellvit_jax.data.instances import separated, type_map
from cellvit_jax.data.targets import hv_map, regression_map
from tests.shared import DATA


def test_hv_equals_the_recorded_targets():
    record = np.load(DATA / "targets" / "hv-nucls-256.npz")
    np.testing.assert_array_equal(hv_map(record["instances"]), record["hv"])


@pytest.mark.parametrize("shape", [(30, 70), (64, 33)])
def test_targets_equal_their_definition_nucleus_by_nucleus(shape):
    instances = np.random.default_rng(0).integers(0, 9, (shape[0] // 5 + 1, shape[1] // 5 + 1))
    instances = np.kron(instances, np.ones((5, 5), int))[: shape[0], : shape[1]]
    hv, distance = np.zeros((2, *shape, 2), np.float32)
    for nucleus in np.unique(instances)[1:]:
        inside = instances == nucleus
        for channel, position in enumerate(np.nonzero(inside)[::-1]):
            offset = (position - np.floor(position.mean() + 0.5) + 1).astype(np.float32)
            offset[offset < 0] /= -offset.min()
            offset[offset > 0] /= offset.max()
            hv[inside, channel] = offset
            distance[inside, channel] = position - position.mean()
    np.testing.assert_array_equal(hv_map(instances), hv)
    np.testing.assert_array_equal(regression_map(instances), distance)


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
    for scale in (1000, 100_000_000, -1):  # those index no table
        np.testing.assert_array_equal(hv_map(instances * scale), hv)
        np.testing.assert_array_equal(regression_map(instances * scale), regression_map(instances))
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


def test_types_of_instances_become_types_of_pixels():
    instances = two_nuclei()
    types = type_map(instances, np.array([7, 3, 90]), np.array([2, 5, 1]))
    assert types.dtype == np.uint8
    np.testing.assert_array_equal(types, 2 * (instances == 7) + 5 * (instances == 3))
    assert not type_map(instances, np.array([], int), np.array([], int)).any()


def test_pieces_are_numbered_in_raster_order_and_touch_by_corners_too():
    pieces = separated(np.array([[4, 0, 4, 2], [0, 4, 0, 2], [0, 0, 0, 0], [4, 2, 0, 4]]))
    expected = [[1, 0, 1, 2], [0, 1, 0, 2], [0, 0, 0, 0], [3, 4, 0, 5]]
    np.testing.assert_array_equal(pieces, expected)
    assert pieces.dtype == np.int32
