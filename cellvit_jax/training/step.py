"""One step of training, a pure function of (state, batch)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from cellvit_jax import sharding
from cellvit_jax.training.objective import Metrics
from cellvit_jax.training.optimizer import in_encoder, optimizer
from cellvit_jax.training.recipes import Recipe
from cellvit_jax.training.state import Arrays, Layout, TrainState, named

Step = Callable[[TrainState, Mapping[str, Any]], tuple[TrainState, Metrics]]


def make_step(layout: Layout, *, encoder_rests: bool) -> Step:
    """The jitted step of a layout, whose state is donated.

    A step in which the encoder rests takes no gradients of it, and leaves it and its moments as
    they are: `Recipe.encoder_rests` says which steps these are. The batch is one of `put_batch`
    with what the task is given; metrics are those of the task's loss and `grad_norm`, as scalars.
    """
    recipe, places = layout.recipe, layout.shardings.params | layout.shardings.rest
    update = optimizer(recipe, encoder_rests=encoder_rests).update

    @partial(jax.jit, donate_argnums=0, out_shardings=(layout.shardings, None))
    def train_step(state: TrainState, batch: Mapping[str, Any]):
        streams = streams_at(layout, state.step)
        resting, moving = parted(state.params, encoder_rests)

        def network(params: Arrays):
            return layout.merge(sharding.gathered(params | state.rest, places), streams)

        def average():
            return network(state.params if state.ema is None else state.ema)

        def loss_of(moving: Arrays):
            model = network(moving | resting)
            loss, metrics = layout.task.loss(model, batch, average)
            return loss, (metrics, named(nnx.state(model, nnx.BatchStat)))

        (_, (metrics, statistics)), grads = jax.value_and_grad(loss_of, has_aux=True)(moving)
        metrics |= {"grad_norm": optax.tree.norm(grads)}
        grads |= jax.tree.map(jnp.zeros_like, resting)
        updates, moments = update(grads, state.optimizer, state.params)
        params = optax.apply_updates(state.params, updates)
        ema = averaged(recipe, state, params)
        return TrainState(state.step + 1, params, state.rest | statistics, moments, ema), metrics

    return train_step


def parted(params: Arrays, encoder_rests: bool) -> tuple[Arrays, Arrays]:
    """Those parameters that rest in a step, and those that move."""
    resting = {name: p for name, p in params.items() if encoder_rests and in_encoder(name)}
    return resting, {name: p for name, p in params.items() if name not in resting}


def streams_at(layout: Layout, step: jax.Array) -> Arrays:
    """The random streams of a step, which follow from the recipe's seed and the step alone."""
    key = jax.random.fold_in(jax.random.key(layout.recipe.seed), step)
    return {
        name: jax.random.fold_in(key, index)
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        else jnp.zeros(leaf.shape, leaf.dtype)
        for index, (name, leaf) in enumerate(sorted(layout.streams.items()))
    }


def averaged(recipe: Recipe, state: TrainState, params: Arrays) -> Arrays | None:
    """The moving average after a step."""
    if recipe.ema_decay is None:
        return None
    share = SHARES[recipe.ema_schedule](recipe.ema_decay, state.step, recipe.steps)
    return optax.incremental_update(params, state.ema, share)


def warming(decay: float, step: jax.Array, steps: int) -> jax.Array:
    """The share of the new weights where an average forgets its beginning sooner than `decay`."""
    return jnp.maximum(1 - decay, 9 / (10 + step))


def cosine(decay: float, step: jax.Array, steps: int) -> jax.Array:
    """The share of the new weights where an average moves less and less (Grill et al. 2020)."""
    return (1 - decay) * (1 + jnp.cos(jnp.pi * step / steps)) / 2


SHARES: dict[str, Callable[[float, jax.Array, int], jax.Array]] = {
    "warming": warming,
    "cosine": cosine,
}
