import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cellvit_jax.cells import edges
from cellvit_jax.cells.watershed import instances
from cellvit_jax.errors import InputError
from cellvit_jax.inference import reduction
from tests.cells.records import LARGE, SMALL, record, same_partition
from tests.networks import noise

device_edges = jax.jit(lambda hv: reduction.edges(hv[None])[0])


@pytest.mark.parametrize("name", SMALL + LARGE)
def test_partitions_are_those_of_the_host(name: str) -> None:
    maps = record(name)
    host, device = edges(maps.hv, "fixed"), np.asarray(device_edges(maps.hv))
    np.testing.assert_allclose(device, host, rtol=0, atol=4 * 2.0**-24)
    found, expected = (instances(maps.binary, edge) for edge in (device, host))
    assert same_partition(found, expected)


def test_edges_are_on_the_grid_that_the_flood_relies_on() -> None:
    edge = np.asarray(device_edges(record("noisy-512").hv))
    np.testing.assert_array_equal(edge * 2**24 % 1, 0)


def logits(types: int) -> dict[str, jax.Array]:
    shapes = {"nuclei_binary_map": 2, "hv_map": 2, "nuclei_type_map": types}
    return {name: noise(2, 32, 32, n, seed=n) for name, n in shapes.items()}


def test_packed_kinds_are_binary_and_types() -> None:
    maps = logits(255)
    kept = reduction.unpacked(jax.device_get(reduction.reduced(maps)))
    binary = np.argmax(maps["nuclei_binary_map"], -1)
    np.testing.assert_array_equal(kept["binary"], binary)
    np.testing.assert_array_equal(kept["types"], binary * np.argmax(maps["nuclei_type_map"], -1))


def test_nuclei_of_one_class() -> None:
    kept = reduction.unpacked(jax.device_get(reduction.reduced(logits(3), binary=True)))
    np.testing.assert_array_equal(kept["binary"], kept["types"])
    assert "probabilities" not in kept


def test_broken_maps_have_broken_edges() -> None:
    hv = jnp.zeros((40, 40, 2)).at[20, 20].set(jnp.nan)
    assert np.isnan(device_edges(hv)).any()


def test_too_many_classes_are_refused() -> None:
    with pytest.raises(InputError, match="255"):
        reduction.reduced(logits(256))
