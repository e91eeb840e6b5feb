"""The plain vision transformer of CellViT-256 (DINO ViT-S/16) and of the generic CellViT."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import nnx
from jax.typing import DTypeLike

from cellvit_jax.models.config import EncoderConfig


class Encoded(NamedTuple):
    """What an encoder gives to the decoder: the image it saw, raw block outputs, tissue logits."""

    image: jax.Array  # (B, h·patch, w·patch, 3)
    skips: tuple[jax.Array, ...]  # (B, prefix + h·w, D), prefix tokens first
    tissue: jax.Array | None  # (B, T), None without a tissue head


def dropout(rate: float, *, rngs: nnx.Rngs) -> nnx.Dropout:
    """Dropout that owns a random stream only where it can ever drop something."""
    return nnx.Dropout(rate, rngs=rngs if rate > 0 else None)


def drop_path(rate: float, *, rngs: nnx.Rngs) -> nnx.Dropout:
    """Stochastic depth: drops the whole residual of a sample (one draw along the first axis)."""
    # of tokens (B,N,D) and of grids (B,h,w,D)
    return nnx.Dropout(rate, broadcast_dims=(1, 2, -1), rngs=rngs if rate > 0 else None)


def precise(dtype: DTypeLike) -> DTypeLike:
    """The type of norms, softmax and the residual stream: float32, or float64 where all is."""
    return jnp.float64 if np.dtype(dtype) == np.float64 else jnp.float32


def layer_norm(dim: int, *, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs) -> nnx.LayerNorm:
    """LayerNorm in float32, with the variance computed from centred values."""
    return nnx.LayerNorm(
        dim, epsilon=1e-6, use_fast_variance=False, dtype=precise(dtype), rngs=rngs
    )


class Attention(nnx.Module):
    """Multi-head self-attention with one fused qkv projection."""

    def __init__(self, config: EncoderConfig, *, dtype: DTypeLike, rngs: nnx.Rngs):
        dim = config.embed_dim
        self.num_heads = config.num_heads
        self.qkv = nnx.Linear(dim, 3 * dim, dtype=dtype, rngs=rngs)
        self.proj = nnx.Linear(dim, dim, dtype=dtype, rngs=rngs)
        self.dropout = dropout(config.attention_drop_rate, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        q, k, v = rearrange(
            self.qkv(x), "b n (three h d) -> three b h n d", three=3, h=self.num_heads
        )
        scores = jnp.einsum("bhqd,bhkd->bhqk", q * q.shape[-1] ** -0.5, k)
        weights = jax.nn.softmax(scores.astype(precise(v.dtype))).astype(v.dtype)
        attended = jnp.einsum("bhqk,bhkd->bhqd", self.dropout(weights), v)
        return self.proj(rearrange(attended, "b h n d -> b n (h d)"))


class Mlp(nnx.Module):
    """Two linear layers around the exact (erf) GELU."""

    def __init__(self, config: EncoderConfig, *, dtype: DTypeLike, rngs: nnx.Rngs):
        dim, hidden = config.embed_dim, config.mlp_width
        self.fc1 = nnx.Linear(dim, hidden, dtype=dtype, rngs=rngs)
        self.fc2 = nnx.Linear(hidden, dim, dtype=dtype, rngs=rngs)
        self.dropout = dropout(config.drop_rate, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.dropout(jax.nn.gelu(self.fc1(x), approximate=False))
        return self.dropout(self.fc2(x))


class Block(nnx.Module):
    """Pre-norm transformer block; the residual stream stays in float32."""

    def __init__(
        self, config: EncoderConfig, drop_path_rate: float, *, dtype: DTypeLike, rngs: nnx.Rngs
    ):
        self.norm1 = layer_norm(config.embed_dim, dtype=dtype, rngs=rngs)
        self.attn = Attention(config, dtype=dtype, rngs=rngs)
        self.norm2 = layer_norm(config.embed_dim, dtype=dtype, rngs=rngs)
        self.mlp = Mlp(config, dtype=dtype, rngs=rngs)
        self.drop_path = drop_path(drop_path_rate, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = x + self.drop_path(self.attn(self.norm1(x)).astype(x.dtype))
        return x + self.drop_path(self.mlp(self.norm2(x)).astype(x.dtype))


def run(blocks: nnx.List, x: jax.Array, *, remat: bool) -> list[jax.Array]:
    """The outputs of all blocks, one after the other.

    With `remat` gradients compute a block again instead of keeping what happens inside it.
    """
    call = nnx.remat(lambda block, x: block(x)) if remat else lambda block, x: block(x)
    outputs = []
    for block in blocks:
        x = call(block, x)
        outputs.append(x)
    return outputs


class ViT(nnx.Module):
    """Patch embedding, cls token, position embeddings, blocks, tissue head."""

    def __init__(self, config: EncoderConfig, *, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs):
        dim, patch = config.embed_dim, (config.patch_size, config.patch_size)
        normal = nnx.initializers.truncated_normal(0.02)
        positions = 1 + config.position_grid**2
        self.patch_size, self.skip_layers = config.patch_size, config.skip_layers
        self.remat = False  # of training: see `run`
        self.patch_embed = nnx.Conv(3, dim, patch, patch, padding="VALID", dtype=dtype, rngs=rngs)
        self.cls_token = nnx.Param(normal(rngs.params(), (1, 1, dim)))
        self.pos_embed = nnx.Param(normal(rngs.params(), (1, positions, dim)))
        rates = np.linspace(0.0, config.drop_path_rate, config.depth)
        self.blocks = nnx.List(
            [Block(config, float(rate), dtype=dtype, rngs=rngs) for rate in rates]
        )
        self.norm = layer_norm(dim, dtype=dtype, rngs=rngs)
        self.head = nnx.Linear(dim, config.num_tissues, rngs=rngs) if config.num_tissues else None

    def __call__(self, images: jax.Array) -> Encoded:
        outputs = self.outputs(images)
        tissue = None if self.head is None else self.head(self.norm(outputs[-1])[:, 0])
        return Encoded(images, tuple(outputs[i - 1] for i in self.skip_layers), tissue)

    def features(self, images: jax.Array) -> dict[str, jax.Array]:
        """Tokens (B,h,w,D) and cls token (B,D) after the last norm."""
        h = images.shape[1] // self.patch_size
        x = self.norm(self.outputs(images)[-1])
        return {"tokens": rearrange(x[:, 1:], "b (h w) d -> b h w d", h=h), "cls": x[:, 0]}

    def outputs(self, images: jax.Array) -> list[jax.Array]:
        """The outputs (B,1+h·w,D) of all blocks, cls token first."""
        x = self.patch_embed(images).astype(images.dtype)
        grid = x.shape[1:3]
        cls = jnp.broadcast_to(self.cls_token[...], (x.shape[0], 1, x.shape[-1]))
        x = jnp.concatenate([cls, rearrange(x, "b h w d -> b (h w) d")], axis=1)
        x = x + resize_positions(self.pos_embed[...], grid)
        return run(self.blocks, x, remat=self.remat)


def resize_positions(positions: jax.Array, grid: tuple[int, int]) -> jax.Array:
    """Position embeddings (1, 1 + n·n, D) for another grid, as DINO resizes them.

    Bicubic with the scale factor (side + 0.1) / n, which is not the ratio of the sides; the cls
    position is kept, and the stored grid itself is used as it is.
    """
    side = round((positions.shape[1] - 1) ** 0.5)
    if grid == (side, side):
        return positions
    table = rearrange(positions[0, 1:], "(h w) d -> h w d", h=side)
    table = table.astype(precise(table.dtype))
    rows, columns = (jnp.asarray(cubic_weights(side, n), table.dtype) for n in grid)
    table = jnp.einsum("ih,jw,hwd->ijd", rows, columns, table)
    table = rearrange(table, "h w d -> 1 (h w) d").astype(positions.dtype)
    return jnp.concatenate([positions[:, :1], table], axis=1)


def cubic_weights(size: int, new_size: int) -> np.ndarray:
    """The (new_size, size) matrix of DINO's cubic interpolation (a = -0.75, clamped)."""
    source = (np.arange(new_size) + 0.5) * size / (new_size + 0.1) - 0.5
    first = np.floor(source).astype(int)
    weights = np.zeros((new_size, size))
    for tap in range(-1, 3):
        index = np.clip(first + tap, 0, size - 1)
        np.add.at(weights, (np.arange(new_size), index), cubic_kernel(source - (first + tap)))
    return weights


def cubic_kernel(distance: np.ndarray, a: float = -0.75) -> np.ndarray:
    """Keys' cubic convolution kernel."""
    x = np.abs(distance)
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * (x**3 - 5 * x**2 + 8 * x - 4)
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))
