"""How small networks are trained on vectors in memory: an epoch is one call of the device."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from cellvit_jax.errors import MissingExtraError

FLOOR = 1e-6  # of a standard deviation: vectors may have entries that never change

# of all data and a batch of it: a network's arguments, labels (B,), weights (B,) in the loss
Examples = Callable[[Any, Any], tuple[tuple[jax.Array, ...], jax.Array, jax.Array]]


def prepared(model: nnx.Module, learning_rate: float, weight_decay: float) -> tuple[Any, Any]:
    """Graph and state of a network with its AdamW. Raises MissingExtraError."""
    try:
        import optax
    except ModuleNotFoundError as error:
        raise MissingExtraError("optax", "train") from error
    rule = optax.adamw(learning_rate, weight_decay=weight_decay)
    return nnx.split((model, nnx.Optimizer(model, rule, wrt=nnx.Param)))


@partial(jax.jit, static_argnums=(0, 1))
def epoch(
    graphdef: Any, examples: Examples, state: Any, data: Any, batches: Any
) -> tuple[Any, Any]:
    """A step for each batch, the leading axis of `batches`; the state after it, and the mean loss.

    `examples(data, batch)` gives what the network is called with, and what it should have said.
    """

    def step(state, batch):
        model, optimizer = nnx.merge(graphdef, state)
        modeldef, params, rest = nnx.split(model, nnx.Param, ...)
        inputs, labels, weights = examples(data, batch)

        def loss_fn(params):
            model = nnx.merge(modeldef, params, rest, copy=True)
            chances = jax.nn.log_softmax(logits_of(model(*inputs)))
            own = jnp.take_along_axis(chances, labels[:, None], 1)[:, 0]
            loss = -(own * weights).sum() / jnp.maximum(weights.sum(), 1e-6)
            return loss, nnx.state(model, nnx.Not(nnx.Param))

        (loss, rest), grads = jax.value_and_grad(loss_fn, has_aux=True)(params)
        optimizer.update(model, grads)
        nnx.update(model, rest)
        return nnx.state((model, optimizer)), loss

    state, losses = jax.lax.scan(step, state, batches)
    return state, losses.mean()


def logits_of(said: Any) -> jax.Array:
    """The logits of what a network returns, which may be a tuple of them and more."""
    return said[0] if isinstance(said, tuple) else said


def batches(rng: np.random.Generator, count: int, size: int) -> np.ndarray:
    """The numbers below `count` in a random order (batches, size); -1 fills the last batch."""
    order = np.full(-(-count // size) * size, -1, np.int32)
    order[:count] = rng.permutation(count)
    return order.reshape(-1, size)


def until_no_better(
    state: Any,
    advance: Callable[[Any], tuple[Any, Any]],
    judge: Callable[[Any], tuple[float, dict[str, float]]] | None,
    epochs: int,
    patience: int,
) -> tuple[Any, int, list[dict[str, float]]]:
    """The state of the best epoch, which one that is, and what was seen of every epoch.

    `judge` gives a state's score, the larger the better, and more figures; without it the last
    epoch is the best. Training ends after `patience` epochs without a better one.
    """
    best: tuple[float, Any, int] = (-np.inf, state, 0)
    history = []
    for number in range(1, epochs + 1):
        state, loss = advance(state)
        history.append({"epoch": number, "loss": float(loss)})
        score, figures = judge(state) if judge else (float(number), {})
        history[-1] |= figures
        if score > best[0]:
            best = score, state, number
        elif number - best[2] >= patience:
            break
    return best[1], best[2], history


def spread(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation (D,) by which vectors (N,D) are standardised."""
    return vectors.mean(0, dtype=np.float32), np.maximum(vectors.std(0, dtype=np.float32), FLOOR)


def for_inference(
    graphdef: Any, state: Any, first: str, mean: np.ndarray, std: np.ndarray
) -> nnx.Module:
    """The trained network for vectors as they are, without random streams.

    That vectors were standardised in training goes into the layer called `first`.
    """
    model, _ = nnx.merge(graphdef, state)
    config = dataclasses.replace(model.config, drop_rate=0.0)
    made = nnx.eval_shape(lambda: type(model)(config, rngs=nnx.Rngs(0)))
    values = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    kernel = values[first]["kernel"] / std[:, None]
    values[first] = {"kernel": kernel, "bias": values[first]["bias"] - mean @ kernel}
    abstract = nnx.state(made)
    nnx.replace_by_pure_dict(abstract, values)
    nnx.update(made, abstract)
    made.config = model.config
    return made
