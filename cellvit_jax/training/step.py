"""One optimisation step, a pure function of (state, batch)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import jax
import optax
from flax import nnx
from jax.typing import ArrayLike

from cellvit_jax.training.objective import Metrics, Objective

Step = Callable[[nnx.State, Mapping[str, ArrayLike]], tuple[nnx.State, Metrics]]


def make_step(graphdef: nnx.GraphDef, objective: Objective) -> Step:
    """The jitted step for `graphdef` of a (model, optimizer) pair; its state is donated."""

    @partial(jax.jit, donate_argnums=0)
    def train_step(state, batch):
        model, optimizer = nnx.merge(graphdef, state)
        modeldef, params, rest = nnx.split(model, nnx.Param, ...)

        def loss_fn(params):
            # a copy, since batch statistics must not be written across trace levels
            model = nnx.merge(modeldef, params, rest, copy=True)
            loss, metrics = objective(model, batch)
            return loss, (metrics, nnx.state(model, nnx.Not(nnx.Param)))

        (_, (metrics, rest)), grads = jax.value_and_grad(loss_fn, has_aux=True)(params)
        optimizer.update(model, grads)
        nnx.update(model, rest)
        return nnx.state((model, optimizer)), metrics | {"grad_norm": optax.tree.norm(grads)}

    return train_step
