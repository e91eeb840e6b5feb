"""The nearest neighbours of a patch, by the cosine: what vectors tell without any training."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cellvit_jax.probes.bags import Bags, joined
from cellvit_jax.probes.linear import log_loss
from cellvit_jax.probes.predict import Predicted, in_rows

COUNTS = (1, 3, 5, 10, 20, 50, 100)
BLOCK = 4096  # known patches that are compared with at one time


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Neighbours vote with the weight exp(cosine / temperature), as in DINO's evaluation.

    Their number is chosen on validation slides unless it is given; without such slides it is 10.
    """

    neighbours: int | None = None
    temperature: float = 0.07
    seed: int = 0


@dataclasses.dataclass(frozen=True, eq=False)
class Fitted:
    """The known patches, and what was chosen, by the recipe's names."""

    known: Bags
    classes: int
    recipe: Recipe
    chosen: dict[str, Any]
    model: None = None

    def __call__(self, bags: Bags) -> Predicted:
        """What the neighbours say of bags."""
        near = nearest(bags.vectors, self.known.vectors, self.chosen["neighbours"])
        patches = votes(*near, self.known, self.classes, self.recipe.temperature)
        return Predicted(bags.pooled(patches), patches)


def fit(train: Bags, val: Bags, classes: int, recipe: Recipe) -> Fitted:
    """The patches of both, and the number of neighbours in `train` that gives `val` the least log
    loss."""
    count = recipe.neighbours
    if count is None:
        count = _best(train, val, classes, recipe.temperature) if len(val) else 10
    return Fitted(joined(train, val), classes, recipe, {"neighbours": count})


def _best(train: Bags, val: Bags, classes: int, temperature: float) -> int:
    counts = [n for n in COUNTS if n <= len(train.vectors)]
    cosines, places = nearest(val.vectors, train.vectors, counts[-1])
    losses = []
    for n in counts:
        patches = votes(cosines[:, :n], places[:, :n], train, classes, temperature)
        losses.append(log_loss(val.pooled(patches), val.labels))
    return counts[int(np.argmin(losses))]


def votes(
    cosines: np.ndarray, places: np.ndarray, known: Bags, classes: int, temperature: float
) -> np.ndarray:
    """Probabilities (N, K) from the neighbours (N, k) of patches."""
    labels = known.labels[known.owners][places]
    weights = np.exp((cosines - cosines[:, :1]) / temperature)
    found = np.zeros((len(cosines), classes), np.float32)
    for label in range(classes):
        found[:, label] = (weights * (labels == label)).sum(1)
    return found / found.sum(1, keepdims=True)


def nearest(vectors: np.ndarray, known: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Cosines and rows (N, k) of the nearest ones of `known` (M,D), the nearest first.

    k is `count`, or M where that is less. Memory does not grow with the product of N and M.
    """
    count = min(count, len(known))
    blocks = np.zeros((-(-len(known) // BLOCK), BLOCK, known.shape[1]), np.float16)
    blocks.reshape(-1, known.shape[1])[: len(known)] = known
    place = partial(_nearest, jax.device_put(blocks), len(known), count)
    return in_rows(place, vectors)


@partial(jax.jit, static_argnums=(1, 2))
def _nearest(blocks, known: int, count: int, vectors):
    wanted = _normalised(vectors)

    def step(best, block):
        start, vectors = block
        inside = start + jnp.arange(BLOCK) < known
        cosines = jnp.where(inside, wanted @ _normalised(vectors).T, -jnp.inf)
        cosines, order = jax.lax.top_k(jnp.concatenate([best[0], cosines], 1), count)
        before = jnp.take_along_axis(best[1], jnp.minimum(order, count - 1), 1)
        return (cosines, jnp.where(order < count, before, start + order - count)), None

    shape = len(vectors), count
    best = jnp.full(shape, -jnp.inf), jnp.zeros(shape, jnp.int32)
    starts = BLOCK * jnp.arange(len(blocks))
    return jax.lax.scan(step, best, (starts, blocks))[0]


def _normalised(vectors):
    vectors = jnp.asarray(vectors, jnp.float32)
    return vectors / jnp.maximum(jnp.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
