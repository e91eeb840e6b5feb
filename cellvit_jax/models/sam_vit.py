"""The image encoder of Segment Anything: windowed attention with relative positions, and a neck."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import nnx
from jax.typing import DTypeLike

from cellvit_jax.errors import InputError
from cellvit_jax.models.config import EncoderConfig
from cellvit_jax.models.vit import Encoded, Mlp, drop_path, dropout, layer_norm, precise, run

NECK_WIDTH = 256


class Attention(nnx.Module):
    """Self-attention over a grid, with relative positions decomposed into rows and columns.

    The tables hold an embedding for each of the 2·side − 1 distances of a grid with that side.
    """

    def __init__(self, config: EncoderConfig, side: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        dim, table = config.embed_dim, (2 * side - 1, config.embed_dim // config.num_heads)
        self.num_heads = config.num_heads
        self.qkv = nnx.Linear(dim, 3 * dim, dtype=dtype, rngs=rngs)
        self.proj = nnx.Linear(dim, dim, dtype=dtype, rngs=rngs)
        self.rel_pos_h = nnx.Param(jnp.zeros(table))
        self.rel_pos_w = nnx.Param(jnp.zeros(table))
        self.dropout = dropout(config.attention_drop_rate, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        h, w = x.shape[1:3]
        qkv = rearrange(
            self.qkv(x), "b h w (three n d) -> three b n h w d", three=3, n=self.num_heads
        )
        q, k, v = qkv
        rows = relative(self.rel_pos_h[...], h).astype(q.dtype)
        columns = relative(self.rel_pos_w[...], w).astype(q.dtype)
        scores = jnp.einsum("bnhwd,bnijd->bnhwij", q * q.shape[-1] ** -0.5, k)
        # the distances' part sees q unscaled
        scores += jnp.einsum("bnhwd,hid->bnhwi", q, rows)[..., None]
        scores += jnp.einsum("bnhwd,wjd->bnhwj", q, columns)[..., None, :]
        weights = jax.nn.softmax(scores.astype(precise(v.dtype)), axis=(-2, -1)).astype(v.dtype)
        attended = jnp.einsum("bnhwij,bnijd->bnhwd", self.dropout(weights), v)
        return self.proj(rearrange(attended, "b n h w d -> b h w (n d)"))


def relative(table: jax.Array, n: int) -> jax.Array:
    """Embeddings (n, n, d) of the distances between n queries and n keys.

    A table of another length than 2·n − 1 is resized linearly, not antialiased.
    """
    if len(table) != 2 * n - 1:
        weights = jnp.asarray(linear_weights(len(table), 2 * n - 1))
        table = jnp.matmul(weights, table.astype(precise(table.dtype)), precision="highest")
    return table[np.arange(n)[:, None] - np.arange(n) + n - 1]


def linear_weights(size: int, new_size: int) -> np.ndarray:
    """The (new_size, size) float32 matrix of linear interpolation, clamped at the ends.

    `jax.image.resize` computes the coordinates in float32, which is felt in the scores.
    """
    source = np.clip((np.arange(new_size) + 0.5) * size / new_size - 0.5, 0, size - 1)
    return np.maximum(0, 1 - np.abs(source[:, None] - np.arange(size))).astype(np.float32)


def to_windows(x: jax.Array, side: int) -> jax.Array:
    """(B,h,w,D) as windows (B·rows·columns, side, side, D), zeros beyond the bottom and right."""
    b, h, w, d = x.shape
    rows, columns = -(-h // side), -(-w // side)
    x = jnp.pad(x, ((0, 0), (0, rows * side - h), (0, columns * side - w), (0, 0)))
    # one axis at a time: a mesh with explicit axes does not accept a reshape of both
    x = x.reshape(b, rows, side, columns * side, d)
    x = x.reshape(b, rows, side, columns, side, d)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(-1, side, side, d)


def from_windows(windows: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """The inverse of `to_windows` for an array of `shape` (B,h,w,D)."""
    b, h, w, d = shape
    side = windows.shape[1]
    rows, columns = -(-h // side), -(-w // side)
    x = windows.reshape(b, rows, columns, side, side, d).transpose(0, 1, 3, 2, 4, 5)
    x = x.reshape(b, rows * side, columns, side, d)
    return x.reshape(b, rows * side, columns * side, d)[:, :h, :w]


class Doubling(nnx.Module):
    """4×4 transposed convolution of stride 2 and padding 1, without bias: twice as many rows.

    out[2y + k - 1] sums in[y] @ kernel[:, k], along columns alike. One product, then neighbours
    overlap: a dilated convolution would copy its kernel, and multiply by zeros for the most part.
    """

    def __init__(self, dim: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        init = nnx.initializers.lecun_normal(in_axis=0, out_axis=(1, 2, 3))
        self.dtype = dtype
        self.kernel = nnx.Param(init(rngs.params(), (dim, 4, 4, dim)))

    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.kernel[...].astype(self.dtype)
        products = x.astype(self.dtype) @ kernel.reshape(len(kernel), -1)
        # tap k = 2·s + a falls on pixel a of the pair that lies s further down, or to the right
        taps = rearrange(products, "b h w (s a t c d) -> s t b h w a c d", s=2, a=2, t=2, c=2)
        left, right = (
            shifted(t, 0, axis=1) + shifted(u, 1, axis=1) for t, u in taps.swapaxes(0, 1)
        )
        pairs = shifted(left, 0, axis=2) + shifted(right, 1, axis=2)
        return rearrange(pairs, "b h w a c d -> b (h a) (w c) d")[:, 1:-1, 1:-1]


def shifted(x: jax.Array, by: int, *, axis: int) -> jax.Array:
    """The array one longer along an axis: with a zero behind it (0), or before it (1)."""
    padding = [(0, 0)] * x.ndim
    padding[axis] = (by, 1 - by)
    return jnp.pad(x, padding)


class Adapter(nnx.Module):
    """SAM-Med2D's addition to a block (Cheng et al. 2023): channels weighed, then space seen.

    Takes grids with an even number of rows and columns.
    """

    def __init__(self, config: EncoderConfig, *, dtype: DTypeLike, rngs: nnx.Rngs):
        dim = config.embed_dim
        kwargs = {"use_bias": False, "dtype": dtype, "rngs": rngs}
        self.squeeze = nnx.Linear(dim, dim // 4, **kwargs)
        self.excite = nnx.Linear(dim // 4, dim, **kwargs)
        self.down = nnx.Conv(dim, dim, (3, 3), 2, padding=1, **kwargs)
        self.up = Doubling(dim, dtype=dtype, rngs=rngs)
        self.norm = nnx.LayerNorm(
            dim, epsilon=1e-5, use_fast_variance=False, dtype=precise(dtype), rngs=rngs
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        weights = self.excite(jax.nn.relu(self.squeeze(x.mean((1, 2), keepdims=True))))
        weighed = x * jax.nn.sigmoid(weights.astype(x.dtype))
        seen = jax.nn.relu(self.up(jax.nn.relu(self.down(weighed))))
        return self.norm(x + seen.astype(x.dtype))


class Block(nnx.Module):
    """Pre-norm block on a grid; `window` is the side of its windows, None for the whole grid."""

    def __init__(
        self,
        config: EncoderConfig,
        window: int | None,
        drop_path_rate: float,
        *,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        self.window = window
        self.norm1 = layer_norm(config.embed_dim, dtype=dtype, rngs=rngs)
        self.attn = Attention(config, window or config.position_grid, dtype=dtype, rngs=rngs)
        self.norm2 = layer_norm(config.embed_dim, dtype=dtype, rngs=rngs)
        self.mlp = Mlp(config, dtype=dtype, rngs=rngs)
        self.adapter = Adapter(config, dtype=dtype, rngs=rngs) if config.adapters else None
        self.drop_path = drop_path(drop_path_rate, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = x + self.drop_path(self.attend(self.norm1(x)).astype(x.dtype))
        normed = self.norm2(x)
        change = self.mlp(normed).astype(x.dtype)
        if self.adapter is not None:
            change = change + self.adapter(normed)
        return x + self.drop_path(change)

    def attend(self, x: jax.Array) -> jax.Array:
        """Attention inside windows, where the padding takes part as zeros."""
        if self.window is None:
            return self.attn(x)
        return from_windows(self.attn(to_windows(x, self.window)), x.shape)


class SamViT(nnx.Module):
    """Patch embedding, position embeddings, blocks, neck, tissue head; no prefix tokens."""

    def __init__(self, config: EncoderConfig, *, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs):
        dim, patch = config.embed_dim, (config.patch_size, config.patch_size)
        side = config.position_grid
        normal = nnx.initializers.truncated_normal(0.02)
        self.skip_layers = config.skip_layers
        self.remat = False  # of training: see `run`
        self.patch_embed = nnx.Conv(3, dim, patch, patch, padding="VALID", dtype=dtype, rngs=rngs)
        self.pos_embed = nnx.Param(normal(rngs.params(), (1, side, side, dim)))
        rates = np.linspace(0.0, config.drop_path_rate, config.depth)
        windows = [
            None if layer in config.global_layers else config.window_size
            for layer in range(1, config.depth + 1)
        ]
        self.blocks = nnx.List(
            [
                Block(config, window, float(rate), dtype=dtype, rngs=rngs)
                for window, rate in zip(windows, rates, strict=True)
            ]
        )
        self.neck = neck(dim, dtype=dtype, rngs=rngs)
        self.head = (
            nnx.Linear(NECK_WIDTH, config.num_tissues, rngs=rngs) if config.num_tissues else None
        )

    def __call__(self, images: jax.Array) -> Encoded:
        outputs = self.outputs(images)
        skips = tuple(rearrange(outputs[i - 1], "b h w d -> b (h w) d") for i in self.skip_layers)
        if self.head is None:
            return Encoded(images, skips, None)
        return Encoded(images, skips, self.head(self.neck(outputs[-1]).mean((1, 2))))

    def embed(self, images: jax.Array) -> jax.Array:
        """The neck's output (B,h,w,256)."""
        return self.features(images)["neck"]

    def features(self, images: jax.Array) -> dict[str, jax.Array]:
        """Tokens (B,h,w,D) as the last block leaves them, and the neck's output (B,h,w,256)."""
        tokens = self.outputs(images)[-1]
        return {"tokens": tokens, "neck": self.neck(tokens).astype(tokens.dtype)}

    def outputs(self, images: jax.Array) -> list[jax.Array]:
        """The outputs (B,h,w,D) of all blocks."""
        x = self.patch_embed(images).astype(images.dtype)
        x = x + crop_positions(self.pos_embed[...], x.shape[1:3])
        return run(self.blocks, x, remat=self.remat)


def crop_positions(positions: jax.Array, grid: tuple[int, ...]) -> jax.Array:
    """The top left corner of the position embeddings (1,n,n,D), which are never resized."""
    side = positions.shape[1]
    if max(grid) > side:
        raise InputError(
            f"SAM's encoder has positions for {side}×{side} patches, the image has "
            f"{grid[0]}×{grid[1]}: cut it into tiles, or let `cellvit_jax.segment` do it"
        )
    return positions[:, : grid[0], : grid[1]]


def neck(dim: int, *, dtype: DTypeLike, rngs: nnx.Rngs) -> nnx.Sequential:
    """1×1 and 3×3 convolution without biases, each under a LayerNorm over channels."""
    kwargs = {"use_bias": False, "dtype": dtype, "rngs": rngs}
    return nnx.Sequential(
        nnx.Conv(dim, NECK_WIDTH, (1, 1), **kwargs),
        layer_norm(NECK_WIDTH, dtype=dtype, rngs=rngs),
        nnx.Conv(NECK_WIDTH, NECK_WIDTH, (3, 3), **kwargs),
        layer_norm(NECK_WIDTH, dtype=dtype, rngs=rngs),
    )
