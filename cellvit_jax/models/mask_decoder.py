"""SAM's mask decoder: a transformer that looks both ways, and masks as products with its tokens."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jax.typing import DTypeLike

from cellvit_jax.models.decoder import Upsample
from cellvit_jax.models.prompt_encoder import gelu
from cellvit_jax.models.sam_vit import NECK_WIDTH
from cellvit_jax.models.vit import layer_norm

NUM_MASKS = 4  # the first for a prompt that leaves no doubt, three for one that does
NUM_HEADS, NUM_LAYERS, MLP_WIDTH = 8, 2, 2048


class Masks(NamedTuple):
    """The four masks of every prompt: 0 answers clear prompts, 1..3 are guesses at unclear ones."""

    logits: jax.Array  # (P, 4h, 4w, 4), above 0 inside
    iou: jax.Array  # (P, 4), the network's own estimate of each mask's quality


def token_norm(*, rngs: nnx.Rngs) -> nnx.LayerNorm:
    """The transformer's norm, whose ε is not that of the image encoder."""
    return nnx.LayerNorm(
        NECK_WIDTH, epsilon=1e-5, use_fast_variance=False, dtype=jnp.float32, rngs=rngs
    )


class Attention(nnx.Module):
    """Attention between two sequences, at an inner `width`."""

    def __init__(self, width: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        self.q_proj = nnx.Linear(NECK_WIDTH, width, dtype=dtype, rngs=rngs)
        self.k_proj = nnx.Linear(NECK_WIDTH, width, dtype=dtype, rngs=rngs)
        self.v_proj = nnx.Linear(NECK_WIDTH, width, dtype=dtype, rngs=rngs)
        self.out_proj = nnx.Linear(width, NECK_WIDTH, dtype=dtype, rngs=rngs)

    def __call__(self, q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        q, k, v = (
            rearrange(project(x), "p n (h d) -> p h n d", h=NUM_HEADS)
            for project, x in ((self.q_proj, q), (self.k_proj, k), (self.v_proj, v))
        )
        scores = jnp.einsum("phqd,phkd->phqk", q * q.shape[-1] ** -0.5, k)
        weights = jax.nn.softmax(scores.astype(jnp.float32)).astype(v.dtype)
        attended = jnp.einsum("phqk,phkd->phqd", weights, v)
        return self.out_proj(rearrange(attended, "p h n d -> p n (h d)")).astype(jnp.float32)


class Mlp(nnx.Module):
    """Linear layers with ReLU between them."""

    def __init__(self, *widths: int, dtype: DTypeLike, rngs: nnx.Rngs):
        self.layers = nnx.List(
            [
                nnx.Linear(inputs, outputs, dtype=dtype, rngs=rngs)
                for inputs, outputs in pairwise(widths)
            ]
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        *hidden, last = self.layers
        for layer in hidden:
            x = jax.nn.relu(layer(x))
        return last(x).astype(jnp.float32)


class TwoWayBlock(nnx.Module):
    """Tokens attend to each other and to the image, then the image to the tokens.

    In the `first` block the tokens are their own positions.
    """

    def __init__(self, first: bool, *, dtype: DTypeLike, rngs: nnx.Rngs):
        dim = NECK_WIDTH
        self.first = first
        self.self_attn = Attention(dim, dtype=dtype, rngs=rngs)
        self.norm1 = token_norm(rngs=rngs)
        self.cross_attn_token_to_image = Attention(dim // 2, dtype=dtype, rngs=rngs)
        self.norm2 = token_norm(rngs=rngs)
        self.mlp = Mlp(dim, MLP_WIDTH, dim, dtype=dtype, rngs=rngs)
        self.norm3 = token_norm(rngs=rngs)
        self.norm4 = token_norm(rngs=rngs)
        self.cross_attn_image_to_token = Attention(dim // 2, dtype=dtype, rngs=rngs)

    def __call__(
        self, tokens: jax.Array, image: jax.Array, places: jax.Array, grid: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Tokens (P,T,D) and image (P,h·w,D), with positions `places` (P,T,D), `grid` (1,h·w,D)."""
        if self.first:
            tokens = self.norm1(self.self_attn(tokens, tokens, tokens))
        else:
            q = tokens + places
            tokens = self.norm1(tokens + self.self_attn(q, q, tokens))
        attended = self.cross_attn_token_to_image(tokens + places, image + grid, image)
        tokens = self.norm2(tokens + attended)
        tokens = self.norm3(tokens + self.mlp(tokens))
        attended = self.cross_attn_image_to_token(image + grid, tokens + places, tokens)
        return tokens, self.norm4(image + attended)


class Transformer(nnx.Module):
    """Two-way blocks, and a last look of the tokens at the image."""

    def __init__(self, *, dtype: DTypeLike, rngs: nnx.Rngs):
        self.layers = nnx.List(
            [TwoWayBlock(i == 0, dtype=dtype, rngs=rngs) for i in range(NUM_LAYERS)]
        )
        self.final_attn_token_to_image = Attention(NECK_WIDTH // 2, dtype=dtype, rngs=rngs)
        self.norm_final_attn = token_norm(rngs=rngs)

    def __call__(
        self, places: jax.Array, image: jax.Array, grid: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        tokens = places
        for layer in self.layers:
            tokens, image = layer(tokens, image, places, grid)
        attended = self.final_attn_token_to_image(tokens + places, image + grid, image)
        return self.norm_final_attn(tokens + attended), image


class MaskDecoder(nnx.Module):
    """Masks of prompts, from the embedded image and the embedded prompts."""

    def __init__(self, *, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs):
        dim = NECK_WIDTH
        self.transformer = Transformer(dtype=dtype, rngs=rngs)
        self.iou_token = nnx.Embed(1, dim, rngs=rngs)
        self.mask_tokens = nnx.Embed(NUM_MASKS, dim, rngs=rngs)
        self.output_upscaling = nnx.Sequential(
            Upsample(dim, dim // 4, dtype=dtype, rngs=rngs),
            layer_norm(dim // 4, rngs=rngs),
            gelu,
            Upsample(dim // 4, dim // 8, dtype=dtype, rngs=rngs),
            gelu,
        )
        self.output_hypernetworks_mlps = nnx.List(
            [Mlp(dim, dim, dim, dim // 8, dtype=dtype, rngs=rngs) for _ in range(NUM_MASKS)]
        )
        self.iou_prediction_head = Mlp(dim, dim, dim, NUM_MASKS, dtype=dtype, rngs=rngs)

    def __call__(self, image: jax.Array, grid: jax.Array, prompts: jax.Array) -> Masks:
        """Masks of P prompts from the image with their dense embeddings on it (P,h,w,D).

        `grid` (h,w,D) are the image's positions, `prompts` (P,N,D) the sparse embeddings.
        """
        count, h = image.shape[:2]
        own = jnp.concatenate([self.iou_token.embedding[...], self.mask_tokens.embedding[...]])
        own = jnp.broadcast_to(own, (count, *own.shape))
        tokens, image = self.transformer(
            jnp.concatenate([own, prompts], axis=1),
            rearrange(image, "p h w d -> p (h w) d"),
            rearrange(grid, "h w d -> 1 (h w) d"),
        )
        features = self.output_upscaling(rearrange(image, "p (h w) d -> p h w d", h=h))
        kernels = jnp.stack(
            [mlp(tokens[:, 1 + i]) for i, mlp in enumerate(self.output_hypernetworks_mlps)], axis=-1
        )
        logits = jnp.einsum("phwd,pdm->phwm", features.astype(jnp.float32), kernels)
        return Masks(logits, self.iou_prediction_head(tokens[:, 0]))
