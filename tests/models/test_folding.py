"""The inference form against the readable one: the same outputs of every family of networks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cellvit_jax.models import CellViT, folded
from cellvit_jax.models.conv import convolved
from cellvit_jax.models.decoder import Upsample
from cellvit_jax.models.folding import UpConv
from tests.networks import filled, noise, small_config

FAMILIES = {
    "vit": {},
    "shared trunk": {"shared_trunk": True, "regression_loss": True, "num_tissues": 0},
    "sam": {"encoder": "sam", "window_size": 3, "global_layers": (2,)},
    "uni": {"encoder": "dinov2"},
    "virchow": {
        "encoder": "dinov2",
        "patch_size": 14,
        "gate": "gelu",
        "num_registers": 2,
        "any_size": True,
    },
}
SIZES = {"virchow": (70, 44)}


def network(dtype=jnp.float32, **fields) -> CellViT:
    return filled(small_config(**fields), dtype)


@pytest.mark.parametrize("family", FAMILIES)
def test_outputs_are_those_of_the_readable_form(family: str) -> None:
    model = network(**FAMILIES[family])
    images = noise(2, *SIZES.get(family, (64, 48)), 3)
    run = jax.jit(lambda model, x: model(x, tokens=True, skips=True))
    with jax.default_matmul_precision("highest"):
        expected, found = run(model, images), run(folded(model), images)
    assert found.keys() == expected.keys()
    for name, reference in expected.items():
        assert np.abs(found[name] - reference).max() <= 1e-5 * np.abs(reference).max(), name


def test_the_model_itself_stays_as_it_is() -> None:
    model = network()
    before = jax.tree.leaves(nnx.state(model))
    folded(model)
    assert all(a is b for a, b in zip(before, jax.tree.leaves(nnx.state(model)), strict=True))


def test_abstract_networks_have_an_abstract_form() -> None:
    config = small_config()
    model = nnx.eval_shape(lambda: CellViT(config, rngs=nnx.Rngs(0)))
    fast = nnx.eval_shape(folded, model)
    assert all(isinstance(x, jax.ShapeDtypeStruct) for x in jax.tree.leaves(nnx.state(fast)))


def test_folded_weights_are_stored_in_the_compute_type() -> None:
    model = network(dtype=jnp.bfloat16)
    fast = nnx.eval_shape(folded, model)
    assert fast.trunks["hv_map"].level0.skip.kernel.dtype == jnp.bfloat16
    maps = jax.eval_shape(lambda model, x: folded(model)(x), model, noise(1, 64, 64, 3))
    assert {x.dtype for x in maps.values()} == {jnp.dtype("float32")}


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (4, 3)])
def test_two_convolutions_as_one(size: tuple[int, int]) -> None:
    up = Upsample(3, 4, dtype=jnp.float32, rngs=nnx.Rngs(0))
    up.bias[...] = noise(4)
    kernel, x = noise(3, 3, 4, 5, seed=1), noise(2, *size, 3, seed=2)
    expected = convolved(up(x), kernel, "SAME")
    found = UpConv(up, kernel, jnp.float32)(x)
    np.testing.assert_allclose(found, expected, atol=1e-4)
