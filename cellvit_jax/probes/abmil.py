"""Training of attention over the patches of slides (`models.Abmil`), in bags of one shape."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from cellvit_jax.heads.fit import class_weights
from cellvit_jax.heads.training import (
    batches,
    epoch,
    for_inference,
    prepared,
    spread,
    until_no_better,
)
from cellvit_jax.models import Abmil, AbmilConfig
from cellvit_jax.probes.bags import Bags
from cellvit_jax.probes.linear import log_loss
from cellvit_jax.probes.predict import Predicted, predicted

STEP = 16  # patches by which the one shape of all bags grows


@dataclasses.dataclass(frozen=True)
class Recipe:
    """AdamW, the epoch with the least log loss on the validation slides.

    Training ends after `patience` epochs without a better one. In each epoch a slide shows up to
    `bag_size` of its patches, others each time.
    """

    hidden_dim: int = 128
    attention_dim: int = 64
    drop_rate: float = 0.25
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    epochs: int = 100
    patience: int = 20
    batch_size: int = 8
    bag_size: int = 1024
    balanced: bool = True
    seed: int = 0


@dataclasses.dataclass(frozen=True, eq=False)
class Fitted:
    """A network ready for inference, the epoch it is of, and what was seen of every epoch."""

    model: Abmil
    chosen: dict[str, Any]
    history: list[dict[str, float]]

    def __call__(self, bags: Bags) -> Predicted:
        """What it says of bags."""
        return predicted(self.model, bags)


def fit(train: Bags, val: Bags, classes: int, recipe: Recipe) -> Fitted:
    """The network of the epoch that does best on `val`; without it that of the last epoch.

    Deterministic: equal bags and recipes, equal networks. Raises MissingExtraError.
    """
    mean, std = spread(train.vectors)
    config = AbmilConfig(
        train.vectors.shape[1], recipe.hidden_dim, recipe.attention_dim, classes, recipe.drop_rate
    )
    model = Abmil(config, rngs=nnx.Rngs(recipe.seed))
    graphdef, state = prepared(model, recipe.learning_rate, recipe.weight_decay)
    rng = np.random.default_rng(recipe.seed)
    weights = class_weights(np.bincount(train.labels, minlength=classes), recipe.balanced)
    data = jax.device_put((train.vectors, mean, std, train.labels, weights))

    def advance(state):
        chosen = batches(rng, len(train), min(recipe.batch_size, len(train)))
        drawn = draws(rng, train, recipe.bag_size)
        return epoch(graphdef, _examples, state, data, (chosen, drawn[chosen]))

    def judge(state):
        network = for_inference(graphdef, state, "embed", mean, std)
        loss = log_loss(predicted(network, val).chances, val.labels)
        return -loss, {"val_loss": loss}

    state, number, history = until_no_better(
        state, advance, judge if len(val) else None, recipe.epochs, recipe.patience
    )
    network: Any = for_inference(graphdef, state, "embed", mean, std)
    return Fitted(network, {"epochs": number}, history)


def draws(rng: np.random.Generator, bags: Bags, most: int) -> np.ndarray:
    """Rows of patches (B, L) of each bag, at most `most` of them, drawn anew; -1 fills a bag."""
    longest = min(most, int(bags.sizes.max()))
    rows = np.full((len(bags), -(-longest // STEP) * STEP), -1, np.int32)
    for number, (start, size) in enumerate(zip(bags.starts, bags.sizes, strict=False)):
        drawn = rng.permutation(size)[:longest]
        rows[number, : len(drawn)] = start + drawn
    return rows


def _examples(data, batch):
    vectors, mean, std, labels, weights = data
    chosen, rows = batch
    bags = (jnp.asarray(vectors[rows], jnp.float32) - mean) / std
    weight = jnp.where(chosen >= 0, weights[labels[chosen]], 0)
    return (bags, rows >= 0), labels[chosen], weight
