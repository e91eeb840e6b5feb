from itertools import islice

import numpy as np
import pytest

from tests.training_data.fields import field

pytest.importorskip("grain")

from cellvit_jax.data.pipeline import RandomTile, batches, encode
from cellvit_jax.data.targets import hv_map


def tiles() -> RandomTile:
    return RandomTile([field(), field(typed=False)], np.array([0.5, 0.5]), tile=32)


def take(count: int, **kwargs) -> list[dict[str, np.ndarray]]:
    return list(islice(batches(tiles(), 4, **kwargs), count))


def test_a_batch_has_every_array_of_a_step():
    (batch,) = take(1, seed=0)
    shapes = {name: (value.shape, value.dtype.name) for name, value in batch.items()}
    assert shapes == {
        "image": ((4, 32, 32, 3), "uint8"),
        "nuclei": ((4, 32, 32), "bool"),
        "hv": ((4, 32, 32, 2), "float32"),
        "types": ((4, 32, 32), "uint8"),
        "typed": ((4,), "float32"),
        "tissue": ((4,), "int32"),
    }


def test_a_stream_may_start_at_any_step():
    whole, later = take(4, seed=3), take(2, seed=3, start=2)
    for expected, batch in zip(whole[2:], later, strict=True):
        for name in expected:
            np.testing.assert_array_equal(batch[name], expected[name])


def test_seeds_and_steps_differ():
    first, second = take(2, seed=0)
    assert (first["image"] != second["image"]).any()
    assert (first["image"] != take(1, seed=1)[0]["image"]).any()


def test_targets_are_made_after_everything_moved():
    sample = field()
    encoded = encode(sample)
    np.testing.assert_array_equal(encoded["hv"], hv_map(sample.instances))
    assert encode(field(typed=False))["typed"] == 0
