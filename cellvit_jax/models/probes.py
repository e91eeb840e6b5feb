"""Classifiers of patches and of slides, from the vectors that an encoder made of the patches.

Logit i belongs to class i + 1 of the card, as that of a cell classifier head does.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from cellvit_jax.card import ModelCard
from cellvit_jax.models.heads import PlainConfig
from cellvit_jax.models.vit import dropout


@dataclasses.dataclass(frozen=True)
class LinearProbeConfig(PlainConfig):
    """The sizes of a `LinearProbe`."""

    token_dim: int
    num_classes: int
    architecture: Literal["linear_probe"] = "linear_probe"


@dataclasses.dataclass(frozen=True)
class AbmilConfig(PlainConfig):
    """The sizes of an `Abmil`; `drop_rate` acts in training only, on the embedded patches."""

    token_dim: int
    hidden_dim: int
    attention_dim: int
    num_classes: int
    drop_rate: float = 0.0
    architecture: Literal["abmil"] = "abmil"


class LinearProbe(nnx.Module):
    """One linear layer over the vector of a patch."""

    def __init__(
        self, config: LinearProbeConfig, *, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs
    ):
        self.config = config
        self.card: ModelCard | None = None  # what a checkpoint says of its weights
        self.fc = nnx.Linear(config.token_dim, config.num_classes, dtype=dtype, rngs=rngs)

    def __call__(self, vectors: jax.Array) -> jax.Array:
        """Float32 logits (..., classes) of vectors (..., D)."""
        return self.fc(jnp.asarray(vectors, jnp.float32)).astype(jnp.float32)


class Abmil(nnx.Module):
    """A slide as the mean of its patches, weighted by gated attention.

    Ilse, Tomczak and Welling, Attention-based deep multiple instance learning, ICML 2018
    (arXiv:1802.04712), equation 9, over a linear layer and a ReLU.
    """

    def __init__(self, config: AbmilConfig, *, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs):
        self.config = config
        self.card: ModelCard | None = None  # what a checkpoint says of its weights
        hidden, inner = config.hidden_dim, config.attention_dim
        self.embed = nnx.Linear(config.token_dim, hidden, dtype=dtype, rngs=rngs)
        self.content = nnx.Linear(hidden, inner, dtype=dtype, rngs=rngs)
        self.gate = nnx.Linear(hidden, inner, dtype=dtype, rngs=rngs)
        self.score = nnx.Linear(inner, 1, dtype=dtype, rngs=rngs)
        self.classify = nnx.Linear(hidden, config.num_classes, dtype=dtype, rngs=rngs)
        self.dropout = dropout(config.drop_rate, rngs=rngs)

    def __call__(self, vectors: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Logits (B, classes) of bags (B, N, D), and the attention (B, N) on their patches.

        Where `mask` (B, N) is false there is no patch. Attention, float32, sums to 1 over those
        there are; of a bag without any it is 0.
        """
        hidden, scores = self.encode(vectors)
        scores = jnp.where(mask, scores, -jnp.inf)
        highest = jnp.max(scores, -1, keepdims=True, where=mask, initial=jnp.finfo(jnp.float32).min)
        weights = jnp.exp(scores - highest)
        attention = weights / jnp.maximum(weights.sum(-1, keepdims=True), 1e-12)
        return self.logits(jnp.einsum("bn,bnd->bd", attention, hidden)), attention

    def encode(self, vectors: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Of each vector (..., D) what is pooled (..., hidden), and its score (...), float32.

        The softmax of the scores of a bag's patches is the attention on them.
        """
        hidden = jax.nn.relu(self.embed(jnp.asarray(vectors, jnp.float32)))
        hidden = self.dropout(hidden)
        gated = jnp.tanh(self.content(hidden)) * jax.nn.sigmoid(self.gate(hidden))
        return hidden.astype(jnp.float32), self.score(gated)[..., 0].astype(jnp.float32)

    def logits(self, pooled: jax.Array) -> jax.Array:
        """Float32 logits (..., classes) of pooled patches (..., hidden)."""
        return self.classify(pooled).astype(jnp.float32)
