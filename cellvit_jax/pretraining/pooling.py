"""One vector an image, of the encoder that learns."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Literal

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx

from cellvit_jax.models.vit import precise
from cellvit_jax.training.objective import normalise

Pool = Literal["mean", "cls"]


def vectors(model: Any, views: jax.Array, pool: Pool) -> jax.Array:
    """(B,V,D) of views (B,V,H,W,3) uint8: the mean token, or the cls token after the final norm.

    SAM has no cls token: there it is always the mean.
    """
    images = rearrange(views, "b v h w c -> (b v) h w c")
    features = model(normalise(model, images))
    mean = pool == "mean" or "cls" not in features
    pooled = features["tokens"].mean((1, 2)) if mean else features["cls"]
    return rearrange(pooled, "(b v) d -> b v d", b=len(views))


def unit(x: jax.Array, axis: int = -1) -> jax.Array:
    """Vectors of length 1."""
    return x * jax.lax.rsqrt(jnp.sum(x**2, axis, keepdims=True) + 1e-12)


class Projector(nnx.Module):
    """Linear layers with GELU between them, from the first to the last of `widths`, in float32."""

    def __init__(self, *widths: int, dtype: str, rngs: nnx.Rngs):
        self.layers = nnx.List(
            [nnx.Linear(n, m, dtype=precise(dtype), rngs=rngs) for n, m in pairwise(widths)]
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        *first, last = self.layers
        for layer in first:
            x = jax.nn.gelu(layer(x), approximate=False)
        return last(x)
