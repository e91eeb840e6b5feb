"""Contrastive learning: two views of a tile are to be alike, those of all others not (SimCLR).

Chen et al. 2020, "A Simple Framework for Contrastive Learning of Visual Representations".
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx

from cellvit_jax.models import EncoderConfig
from cellvit_jax.pretraining.pooling import Pool, Projector, unit, vectors
from cellvit_jax.training.objective import Metrics
from cellvit_jax.training.recipes import Recipe
from cellvit_jax.training.task import network


@dataclasses.dataclass(frozen=True)
class Contrast:
    """The task: batches of `views` (B,2,H,W,3) uint8, compared after a projector of two layers.

    Its layers are `hidden` and `dim` wide; it is left behind when training ends.
    """

    config: EncoderConfig
    recipe: Recipe
    pool: Pool = "mean"
    hidden: int = 2048
    dim: int = 128
    temperature: float = 0.1

    @property
    def given(self) -> Mapping[str, Any]:
        """Nothing."""
        return {}

    def network(self, rngs: nnx.Rngs) -> Any:
        """The encoder, with its `projector`."""
        model = network(self.config, self.recipe, rngs)
        widths = (self.config.embed_dim, self.hidden, self.dim)
        model.projector = Projector(*widths, dtype=self.recipe.dtype, rngs=rngs)
        return model

    def loss(
        self, model: Any, batch: Mapping[str, Any], average: Callable[[], Any]
    ) -> tuple[jax.Array, Metrics]:
        """`info_nce`, and the share of views whose twin is the nearest of all."""
        projected = model.projector(vectors(model, batch["views"], self.pool))
        loss, found = info_nce(projected, self.temperature)
        return loss, {"loss": loss, "found": found}


def info_nce(pairs: jax.Array, temperature: float) -> tuple[jax.Array, jax.Array]:
    """The contrastive loss of pairs (B,2,D) of vectors, and the share of twins that are nearest.

    Each of the 2B vectors is to tell its twin from the 2B − 2 others, by cosine similarity. The
    batch is the global one: under `jax.jit`, pairs of all devices are compared with each other,
    however they are divided among them.
    """
    z = unit(rearrange(pairs, "b two d -> (b two) d"))
    logits = jnp.matmul(z, z.T, precision="highest") / temperature
    itself = jnp.eye(len(z), dtype=bool)
    logits = jnp.where(itself, -jnp.inf, logits)
    twin = jnp.arange(len(z)) ^ 1
    of_twin = jnp.take_along_axis(logits, twin[:, None], 1)[:, 0]
    loss = jnp.mean(jax.nn.logsumexp(logits, -1) - of_twin)
    return loss, jnp.mean(jnp.argmax(logits, -1) == twin)
