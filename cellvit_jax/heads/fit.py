"""Training of a head on tokens in memory."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from cellvit_jax.errors import MissingExtraError
from cellvit_jax.heads.pairs import Labelled
from cellvit_jax.heads.scores import scores
from cellvit_jax.inference.classify import probabilities
from cellvit_jax.models import CellClassifier, HeadConfig

FLOOR = 1e-6  # of a standard deviation: tokens may have entries that never change


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a head is trained: AdamW, the best epoch by `monitor` on the validation cells.

    Training ends after `patience` epochs without a better one. With `balanced`, all classes weigh
    the same in the loss, however many cells they have.
    """

    hidden_dim: int = 256
    drop_rate: float = 0.1
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    epochs: int = 100
    patience: int = 20
    batch_size: int = 256
    balanced: bool = True
    monitor: Literal["auroc", "f1"] = "auroc"
    seed: int = 0


@dataclasses.dataclass(frozen=True, eq=False)
class Fitted:
    """A head ready for inference, the epoch it is of, and the scores of every epoch."""

    head: CellClassifier
    epoch: int
    history: list[dict[str, float]]


def fit(train: Labelled, val: Labelled | None, recipe: Recipe) -> Fitted:
    """A head for the classes of `train`, of the epoch that does best on `val`; without it the last.

    Deterministic: equal cells and recipes, equal heads. Raises MissingExtraError.
    """
    mean, std = train.tokens.mean(0), np.maximum(train.tokens.std(0), FLOOR)
    graphdef, state, advance = _prepared(train, recipe)
    tokens, labels = jnp.asarray((train.tokens - mean) / std), jnp.asarray(train.labels)
    rng = np.random.default_rng(recipe.seed)
    best, history = (-np.inf, state, 0), []
    for epoch in range(1, recipe.epochs + 1):
        state, loss = advance(state, tokens, labels, _batches(rng, len(train), recipe.batch_size))
        history.append({"epoch": epoch, "loss": float(loss)})
        if val is None or not len(val):
            best = (0.0, state, epoch)
            continue
        head = _folded(graphdef, state, mean, std)
        found = scores(val.labels, probabilities(head, val.tokens)[:, 1:])
        history[-1] |= {name: found[name] for name in ("accuracy", "auroc", "ap", "f1")}
        if (score := _monitored(found, recipe.monitor)) > best[0]:
            best = score, state, epoch
        elif epoch - best[2] >= recipe.patience:
            break
    return Fitted(_folded(graphdef, best[1], mean, std), best[2], history)


def class_weights(counts: np.ndarray, balanced: bool) -> np.ndarray:
    """Weights (K,) of the classes in the loss: those there are weigh the same, 1 a cell on average.

    A class without cells has the weight 0.
    """
    there = counts > 0
    if not balanced:
        return there.astype(np.float32)
    share = counts.sum() / max(1, there.sum())
    return np.divide(share, counts, out=np.zeros(len(counts), np.float32), where=there)


def _monitored(found: dict[str, Any], monitor: str) -> float:
    """The score that decides; where it is undefined, as with one class, what is right."""
    return found["accuracy"] if np.isnan(found[monitor]) else found[monitor]


def _prepared(train: Labelled, recipe: Recipe) -> tuple[Any, Any, Any]:
    try:
        import optax
    except ModuleNotFoundError as error:
        raise MissingExtraError("optax", "train") from error
    config = HeadConfig(
        train.tokens.shape[1], recipe.hidden_dim, len(train.annotated), recipe.drop_rate
    )
    model = CellClassifier(config, rngs=nnx.Rngs(recipe.seed))
    rule = optax.adamw(recipe.learning_rate, weight_decay=recipe.weight_decay)
    graphdef, state = nnx.split((model, nnx.Optimizer(model, rule, wrt=nnx.Param)))
    weights = jnp.asarray(class_weights(train.counts, recipe.balanced))
    return graphdef, state, jax.jit(partial(_epoch, graphdef, weights))


def _batches(rng: np.random.Generator, count: int, size: int) -> np.ndarray:
    """The cells in a random order (batches, size); -1 fills the last batch."""
    order = np.full(-(-count // size) * size, -1, np.int32)
    order[:count] = rng.permutation(count)
    return order.reshape(-1, size)


def _epoch(graphdef, weights, state, tokens, labels, batches):
    def step(state, chosen):
        model, optimizer = nnx.merge(graphdef, state)
        modeldef, params, rest = nnx.split(model, nnx.Param, ...)
        weight = jnp.where(chosen >= 0, weights[labels[chosen]], 0)

        def loss_fn(params):
            model = nnx.merge(modeldef, params, rest, copy=True)
            chances = jax.nn.log_softmax(model(tokens[chosen]))
            own = jnp.take_along_axis(chances, labels[chosen][:, None], 1)[:, 0]
            loss = -(own * weight).sum() / jnp.maximum(weight.sum(), 1e-6)
            return loss, nnx.state(model, nnx.Not(nnx.Param))

        (loss, rest), grads = jax.value_and_grad(loss_fn, has_aux=True)(params)
        optimizer.update(model, grads)
        nnx.update(model, rest)
        return nnx.state((model, optimizer)), loss

    state, losses = jax.lax.scan(step, state, batches)
    return state, losses.mean()


def _folded(graphdef, state, mean: np.ndarray, std: np.ndarray) -> CellClassifier:
    """The head for tokens as they are: that they were standardised goes into the first layer."""
    model, _ = nnx.merge(graphdef, state)
    config = dataclasses.replace(model.config, drop_rate=0.0)
    head = nnx.eval_shape(lambda: CellClassifier(config, rngs=nnx.Rngs(0)))
    values = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    kernel = values["fc1"]["kernel"] / std[:, None]
    values["fc1"] = {"kernel": kernel, "bias": values["fc1"]["bias"] - mean @ kernel}
    abstract = nnx.state(head)
    nnx.replace_by_pure_dict(abstract, values)
    nnx.update(head, abstract)
    head.config = model.config
    return head
