"""What a state holds, how it begins, and what a step changes in it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("optax")

from flax import nnx

from cellvit_jax import checkpoint
from cellvit_jax.errors import CheckpointError
from cellvit_jax.sharding import make_mesh
from cellvit_jax.training.optimizer import in_encoder
from cellvit_jax.training.state import TrainState, begin, named, read_weights, trained
from cellvit_jax.training.step import averaged, streams_at
from tests.networks import CARD, make
from tests.training.runs import CONFIG, RECIPE, compiled, layout_on, losses

ONE = make_mesh(devices=jax.devices()[:1])


def values(arrays) -> dict[str, np.ndarray]:
    return {name: np.array(array) for name, array in arrays.items()}


def test_an_encoder_that_never_moves_has_no_moments():
    layout = layout_on(ONE, unfreeze_epoch=None, ema_decay=0.9)
    params = layout.abstract.params
    assert not any(in_encoder(name) for name in params)
    assert "encoder.head.kernel" in params
    assert layout.abstract.ema.keys() == layout.abstract.optimizer[0][0].nu.keys() == params.keys()
    everything = layout_on(ONE).abstract.params | layout_on(ONE).abstract.rest
    assert (params | layout.abstract.rest).keys() == everything.keys()


def test_weights_of_another_network_are_refused():
    weights = {"heads.hv_map.bias": np.zeros(3), "heads.none.bias": np.zeros(3)}
    with pytest.raises(CheckpointError, match="another network") as error:
        begin(layout_on(ONE), weights)
    assert "! heads.hv_map.bias: (3,), the model has (2,)" in str(error.value)
    assert "+ heads.none.bias" in str(error.value)


def test_a_state_begins_with_what_is_given_and_draws_the_rest(tmp_path):
    weights = nnx.state(make(CONFIG, seed=5), checkpoint.WEIGHTS)
    checkpoint.save(tmp_path / "model", weights, CONFIG, CARD)
    layout = layout_on(ONE)
    given = read_weights(layout, tmp_path / "model")
    del given["heads.hv_map.kernel"]
    state = begin(layout, given)
    assert state.step == 0
    wanted = values(named(weights))
    for name, value in values(state.params | state.rest).items():
        assert np.array_equal(value, wanted[name]) == (name != "heads.hv_map.kernel"), name


def test_a_step_with_a_resting_encoder_changes_all_but_the_encoder():
    layout = layout_on(ONE, unfreeze_epoch=1, ema_decay=0.5, remat=True)
    state = begin(layout)
    before = values(state.params | state.rest)
    after, _ = losses(layout, compiled(layout, encoder_rests=True), state, range(1))
    now = values(after.params | after.rest)
    moved = {name for name in before if not np.array_equal(before[name], now[name])}
    assert moved == {name for name in before if not in_encoder(name)}
    network = trained(layout, after)
    name, bias = "heads.hv_map.bias", network.heads.hv_map.bias[...]
    # young averages forget fast: nine tenths of the first step count
    np.testing.assert_allclose(bias, 0.1 * before[name] + 0.9 * now[name], rtol=1e-5)
    assert network.config == CONFIG
    assert network.card == CARD


def test_an_average_moves_slower_as_it_gets_older():
    new, old = {"a": jnp.ones(())}, {"a": jnp.zeros(())}
    states = [TrainState(jnp.asarray(step), old, {}, (), old) for step in (0, 80, 10_000)]
    recipe = dataclasses.replace(RECIPE, ema_decay=0.99)
    found = [float(averaged(recipe, state, new)["a"]) for state in states]
    np.testing.assert_allclose(found, [0.9, 0.1, 0.01], rtol=1e-5)
    assert averaged(RECIPE, states[0], new) is None


def test_a_decay_may_rise_along_a_cosine():
    new, old = {"a": jnp.ones(())}, {"a": jnp.zeros(())}
    recipe = dataclasses.replace(RECIPE, epochs=100, ema_decay=0.9, ema_schedule="cosine")
    states = [TrainState(jnp.asarray(step), old, {}, (), old) for step in (0, 25, 50, 100)]
    found = [float(averaged(recipe, state, new)["a"]) for state in states]
    expected = [0.1 * (1 + np.cos(np.pi * t)) / 2 for t in (0, 0.25, 0.5, 1)]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-8)


def test_every_layer_and_every_step_has_its_own_chance():
    layout = layout_on(ONE)
    keys = [
        tuple(np.asarray(jax.random.key_data(value)).tolist())
        for step in range(2)
        for name, value in streams_at(layout, jnp.asarray(step)).items()
        if name.endswith("key")
    ]
    assert len(set(keys)) == len(keys) == 2 * (2 + 1)  # attention of 2 blocks, 1 path that drops


def held(remat: bool) -> int:
    """Bytes that wait between a forward pass and the gradients it leads to."""
    layout = layout_on(ONE, remat=remat)

    def forward(params, rest, images):
        def loss(params):
            model = layout.merge(params, rest, streams_at(layout, jnp.asarray(0)))
            return model(images)["hv_map"].sum()

        return jax.vjp(loss, params)[1]

    abstract = layout.abstract
    waiting = jax.eval_shape(forward, abstract.params, abstract.rest, jnp.zeros((8, 64, 64, 3)))
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(waiting))


def test_activations_computed_twice_are_not_held():
    assert held(remat=True) < 0.6 * held(remat=False)


@pytest.mark.slow
def test_activations_computed_twice_change_nothing():
    found = []
    for remat in (False, True):
        layout = layout_on(ONE, remat=remat)
        found.append(losses(layout, compiled(layout), begin(layout), range(3))[1])
    assert found[0] == pytest.approx(found[1], rel=1e-5)


@pytest.mark.slow
def test_bfloat16_is_near_float32_and_keeps_parameters_whole():
    found = []
    for dtype in ("float32", "bfloat16"):
        layout = layout_on(ONE, dtype=dtype)
        state, first = losses(layout, compiled(layout), begin(layout), range(2))
        assert {leaf.dtype.name for leaf in state.params.values()} == {"float32"}
        found.append(first)
    assert found[0] == pytest.approx(found[1], rel=0.02)
