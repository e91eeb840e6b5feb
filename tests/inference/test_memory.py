"""A device that has no room for a batch, as far as it can be simulated; several devices."""

import jax
import numpy as np
import pytest

from cellvit_jax import checkpoint
from cellvit_jax.inference import Predictor
from cellvit_jax.inference.memory import DeviceMemoryError
from tests.networks import CARD, save_small


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("memory") / "model"
    save_small(path)
    return checkpoint.load(path)


@pytest.fixture(scope="module")
def tiles() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (11, 32, 32, 3), np.uint8)


def small_device(predictor: Predictor, room: int, message="RESOURCE_EXHAUSTED: Out of memory"):
    """A device on which no more than `room` tiles fit."""
    network = predictor._predict

    def predict(state, images):
        if len(images) > room:
            raise jax.errors.JaxRuntimeError(message)
        return network(state, images)

    predictor._predict = predict
    return predictor


def same(one, other):
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a["edge"], b["edge"], atol=1e-5)
        np.testing.assert_array_equal(a["binary"], b["binary"])


def test_batches_are_halved_until_they_fit(model, tiles):
    predictor = small_device(Predictor(model, CARD, batch_size=32), 8)
    with pytest.warns(UserWarning, match="batches of"):
        found = list(predictor(tiles))
    assert predictor.batch_size == 8
    same(found, list(Predictor(model, CARD, batch_size=1)(tiles)))


def test_a_device_for_not_even_one_tile_is_an_error(model, tiles):
    predictor = small_device(Predictor(model, CARD, batch_size=1), 0)
    with pytest.raises(DeviceMemoryError, match="single tile"):
        list(predictor(tiles))


def test_other_errors_of_the_runtime_are_not_taken_for_it(model, tiles):
    predictor = small_device(Predictor(model, CARD, batch_size=2), 1, "INTERNAL: broken")
    with pytest.raises(jax.errors.JaxRuntimeError, match="broken"):
        list(predictor(tiles))


@pytest.mark.parametrize(("batch", "devices"), [(8, 8), (6, 6), (1, 1)])
def test_several_devices_divide_a_batch(model, tiles, batch, devices):
    predictor = Predictor(model, CARD, batch_size=batch)
    running = predictor._run(list(tiles[:batch]))
    assert len(running["edge"].sharding.device_set) == devices
    same(list(predictor(tiles)), list(Predictor(model, CARD, batch_size=1)(tiles)))


def test_the_devices_are_busy_while_there_is_work(model, tiles):
    predictor = Predictor(model, CARD, batch_size=4)
    list(predictor(tiles))
    assert predictor.busy > 0
