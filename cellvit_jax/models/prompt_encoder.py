"""SAM's prompt encoder: points, corners of boxes and rough masks as embeddings."""

from __future__ import annotations

import math
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from cellvit_jax.models.sam_vit import NECK_WIDTH
from cellvit_jax.models.vit import layer_norm

# kinds of points, as the encoder's labels have them
NO_POINT, BACKGROUND, FOREGROUND, FIRST_CORNER, LAST_CORNER = -1, 0, 1, 2, 3

gelu = partial(jax.nn.gelu, approximate=False)


class Constant(nnx.Variable):
    """Stored with the weights, but neither trained nor rounded."""


class PromptEncoder(nnx.Module):
    """Sparse embeddings of points, a dense one of the mask, positions of the image's tokens."""

    def __init__(self, *, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs):
        dim = NECK_WIDTH
        self.frequencies = Constant(jax.random.normal(rngs.params(), (2, dim // 2)))
        self.point_embeddings = nnx.List([nnx.Embed(1, dim, rngs=rngs) for _ in range(4)])
        self.not_a_point_embed = nnx.Embed(1, dim, rngs=rngs)
        self.mask_downscaling = downscaling(dim, dtype=dtype, rngs=rngs)
        self.no_mask_embed = nnx.Embed(1, dim, rngs=rngs)

    def points(self, points: jax.Array, labels: jax.Array) -> jax.Array:
        """Embeddings (P,N,D) of points (P,N,2), x then y as parts of the image's width and height.

        `labels` (P,N) are 1 (foreground), 0 (background), 2 and 3 (a box's first and last corner),
        or -1 (no point: its place does not matter).
        """
        kinds = [self.not_a_point_embed, *self.point_embeddings]
        table = jnp.concatenate([kind.embedding[...] for kind in kinds])
        places = jnp.where(labels[..., None] == NO_POINT, 0.0, self.positions(points))
        return places + table[labels + 1]

    def grid(self, h: int, w: int) -> jax.Array:
        """Positions (h,w,D) of an image's tokens."""
        rows, columns = ((jnp.arange(n, dtype=jnp.float32) + 0.5) / n for n in (h, w))
        return self.positions(jnp.stack(jnp.meshgrid(columns, rows), axis=-1))

    def positions(self, points: jax.Array) -> jax.Array:
        """Sines and cosines (…,D) of random projections of points (…,2) in 0..1."""
        # at an accelerator's default precision the phases would be off by hundredths of a radian
        phases = jnp.matmul(2 * points - 1, self.frequencies[...], precision="highest")
        phases = 2 * math.pi * phases
        return jnp.concatenate([jnp.sin(phases), jnp.cos(phases)], axis=-1)

    def masks(self, masks: jax.Array | None) -> jax.Array:
        """Embeddings (P,h,w,D) of mask logits (P,4h,4w), or (1,1,1,D) for none."""
        if masks is None:
            return self.no_mask_embed.embedding[...].reshape(1, 1, 1, -1)
        return self.mask_downscaling(masks[..., None]).astype(jnp.float32)


def downscaling(dim: int, *, dtype: DTypeLike, rngs: nnx.Rngs) -> nnx.Sequential:
    """Two 2×2 convolutions of stride 2, each under a LayerNorm over channels, and a 1×1 one."""
    kwargs = {"padding": "VALID", "dtype": dtype, "rngs": rngs}
    return nnx.Sequential(
        nnx.Conv(1, 4, (2, 2), 2, **kwargs),
        layer_norm(4, rngs=rngs),
        gelu,
        nnx.Conv(4, 16, (2, 2), 2, **kwargs),
        layer_norm(16, rngs=rngs),
        gelu,
        nnx.Conv(16, dim, (1, 1), **kwargs),
    )
