import numpy as np
import pytest

from cellvit_jax.models.vit import cubic_weights, resize_positions
from tests.networks import noise


def test_the_stored_grid_is_used_as_it_is():
    positions = noise(1, 17, 8)
    assert resize_positions(positions, (4, 4)) is positions


def test_the_cls_position_is_kept_on_another_grid():
    positions = noise(1, 17, 8)
    resized = resize_positions(positions, (6, 3))
    assert resized.shape == (1, 1 + 18, 8)
    np.testing.assert_array_equal(resized[:, 0], positions[:, 0])


def test_resizing_keeps_constants_and_follows_slopes():
    weights = cubic_weights(14, 16)
    np.testing.assert_allclose(weights.sum(1), 1, atol=1e-6)
    inner = weights @ np.arange(14.0)
    assert np.diff(inner)[3:-3].mean() == pytest.approx(14 / 16.1, abs=0.01)


def test_each_axis_is_resized_by_its_own_factor():
    table = np.arange(16.0).reshape(4, 4, 1).repeat(8, 2)
    positions = np.concatenate([np.zeros((1, 1, 8)), table.reshape(1, 16, 8)], 1)
    resized = resize_positions(positions.astype(np.float32), (8, 4))[:, 1:].reshape(8, 4, 8)
    expected = np.einsum("ih,hwd->iwd", cubic_weights(4, 8), table)
    columns = np.einsum("jw,iwd->ijd", cubic_weights(4, 4), expected)
    np.testing.assert_allclose(resized, columns, atol=1e-4)
