"""Training of a head on tokens in memory."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from cellvit_jax.heads.pairs import Labelled
from cellvit_jax.heads.scores import scores
from cellvit_jax.heads.training import (
    batches,
    epoch,
    for_inference,
    prepared,
    spread,
    until_no_better,
)
from cellvit_jax.inference.classify import probabilities
from cellvit_jax.models import CellClassifier, HeadConfig


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
    mean, std = spread(train.tokens)
    config = HeadConfig(
        train.tokens.shape[1], recipe.hidden_dim, len(train.annotated), recipe.drop_rate
    )
    model = CellClassifier(config, rngs=nnx.Rngs(recipe.seed))
    graphdef, state = prepared(model, recipe.learning_rate, recipe.weight_decay)
    rng = np.random.default_rng(recipe.seed)
    weights = class_weights(train.counts, recipe.balanced)
    data = jax.device_put(((train.tokens - mean) / std, train.labels, weights))

    def advance(state):
        chosen = batches(rng, len(train), recipe.batch_size)
        return epoch(graphdef, _examples, state, data, chosen)

    def judge(state):
        head: Any = for_inference(graphdef, state, "fc1", mean, std)
        assert val is not None
        found = scores(val.labels, probabilities(head, val.tokens)[:, 1:])
        figures = {name: found[name] for name in ("accuracy", "auroc", "ap", "f1")}
        return _monitored(found, recipe.monitor), figures

    state, number, history = until_no_better(
        state, advance, judge if val else None, recipe.epochs, recipe.patience
    )
    head: Any = for_inference(graphdef, state, "fc1", mean, std)
    return Fitted(head, number, history)


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


def _examples(data, chosen):
    tokens, labels, weights = data
    return (tokens[chosen],), labels[chosen], jnp.where(chosen >= 0, weights[labels[chosen]], 0)
