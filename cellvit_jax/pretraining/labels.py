"""Supervised learning of an encoder: what class a tile is of."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from cellvit_jax.inference.patches import PatchPredictor
from cellvit_jax.models import EncoderConfig
from cellvit_jax.models.vit import precise
from cellvit_jax.pretraining.pooling import Pool, vectors
from cellvit_jax.pretraining.tiles import Tiles
from cellvit_jax.training.objective import Metrics
from cellvit_jax.training.recipes import Recipe
from cellvit_jax.training.task import network

NEIGHBOURS, TEMPERATURE = 20, 0.07


@dataclasses.dataclass(frozen=True)
class Classification:
    """The task: batches of `views` (B,1,H,W,3) uint8 and `label` (B,) int32 below `classes`.

    The linear layer that tells the classes is left behind when training ends.
    """

    config: EncoderConfig
    recipe: Recipe
    classes: int
    pool: Pool = "mean"
    smoothing: float = 0.0

    @property
    def given(self) -> Mapping[str, Any]:
        """Nothing."""
        return {}

    def network(self, rngs: nnx.Rngs) -> Any:
        """The encoder, with its `classifier`."""
        model = network(self.config, self.recipe, rngs)
        model.classifier = nnx.Linear(
            self.config.embed_dim, self.classes, dtype=precise(self.recipe.dtype), rngs=rngs
        )
        return model

    def loss(
        self, model: Any, batch: Mapping[str, Any], average: Callable[[], Any]
    ) -> tuple[jax.Array, Metrics]:
        """Cross-entropy, and the share of tiles that are told right."""
        logits = model.classifier(vectors(model, batch["views"], self.pool)[:, 0])
        true = optax.smooth_labels(jax.nn.one_hot(batch["label"], self.classes), self.smoothing)
        loss = jnp.mean(optax.softmax_cross_entropy(logits, true))
        return loss, {"loss": loss, "right": jnp.mean(logits.argmax(-1) == batch["label"])}


def score(known: Tiles, measured: Tiles, pool: Pool, model: Any) -> tuple[dict[str, float], dict]:
    """The share of measured tiles whose nearest known ones are of their class, as `knn`.

    For `training.loop.Validation`; each is a sequence of tiles whose pictures have labels.
    """
    predictor = PatchPredictor(model, pool, known.side)
    seen = [np.stack([one["vector"] for one in predictor(tiles)]) for tiles in (known, measured)]
    right = nearest(seen[0], known.labels, seen[1]) == measured.labels
    return {"knn": float(right.mean())}, {}


def nearest(known: np.ndarray, labels: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """The class (M,) of vectors (M,D) by the nearest of `known` (N,D), whose classes are (N,).

    Those with the largest cosine similarity vote by exp(similarity / temperature) (Wu et al. 2018).
    """
    known, vectors = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (known, vectors))
    similar = vectors @ known.T
    chosen = np.argsort(-similar, axis=1, kind="stable")[:, :NEIGHBOURS]
    weights = np.exp((np.take_along_axis(similar, chosen, 1) - 1) / TEMPERATURE)
    votes = np.zeros((len(vectors), labels.max() + 1))
    np.add.at(votes, (np.arange(len(vectors))[:, None], labels[chosen]), weights)
    return votes.argmax(1)
