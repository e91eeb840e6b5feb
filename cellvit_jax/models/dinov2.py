"""Vision transformers trained with DINOv2: UNI, Virchow and Virchow2."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import nnx
from jax.typing import DTypeLike

from cellvit_jax.models.config import EncoderConfig
from cellvit_jax.models.vit import (
    Attention,
    Encoded,
    Mlp,
    drop_path,
    dropout,
    layer_norm,
    precise,
    run,
)

GATES: dict[str | None, Any] = {
    "gelu": partial(jax.nn.gelu, approximate=False),
    "silu": jax.nn.silu,
}


class GatedMlp(nnx.Module):
    """GEGLU or SwiGLU: half of the first layer's outputs, activated, times the other half."""

    def __init__(self, config: EncoderConfig, *, dtype: DTypeLike, rngs: nnx.Rngs):
        self.gate = config.gate
        self.fc1 = nnx.Linear(config.embed_dim, config.mlp_width, dtype=dtype, rngs=rngs)
        self.fc2 = nnx.Linear(config.mlp_width // 2, config.embed_dim, dtype=dtype, rngs=rngs)
        self.dropout = dropout(config.drop_rate, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        gate, value = jnp.split(self.fc1(x), 2, axis=-1)
        return self.dropout(self.fc2(self.dropout(GATES[self.gate](gate) * value)))


class LayerScale(nnx.Module):
    """A learnt factor for every channel, in float32."""

    def __init__(self, dim: int):
        self.gamma = nnx.Param(jnp.full((dim,), 1e-5))

    def __call__(self, x: jax.Array) -> jax.Array:
        return x.astype(precise(x.dtype)) * self.gamma[...].reshape(1, 1, -1)


class Block(nnx.Module):
    """Pre-norm transformer block with scaled residuals."""

    def __init__(
        self, config: EncoderConfig, drop_path_rate: float, *, dtype: DTypeLike, rngs: nnx.Rngs
    ):
        mlp = GatedMlp if config.gate else Mlp
        self.norm1 = layer_norm(config.embed_dim, dtype=dtype, rngs=rngs)
        self.attn = Attention(config, dtype=dtype, rngs=rngs)
        self.ls1 = LayerScale(config.embed_dim)
        self.norm2 = layer_norm(config.embed_dim, dtype=dtype, rngs=rngs)
        self.mlp = mlp(config, dtype=dtype, rngs=rngs)
        self.ls2 = LayerScale(config.embed_dim)
        self.drop_path = drop_path(drop_path_rate, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = x + self.drop_path(self.ls1(self.attn(self.norm1(x))))
        return x + self.drop_path(self.ls2(self.mlp(self.norm2(x))))


class DinoV2(nnx.Module):
    """Patch embedding, cls and register tokens, position embeddings, blocks, tissue head."""

    def __init__(self, config: EncoderConfig, *, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs):
        dim, patch, registers = config.embed_dim, config.patch_size, config.num_registers
        normal = nnx.initializers.truncated_normal(0.02)
        positions = 1 + registers + config.position_grid**2
        self.patch_size, self.position_grid = patch, config.position_grid
        self.skip_layers = config.skip_layers
        self.remat = False  # of training: see `run`
        self.patch_embed = nnx.Conv(
            3, dim, (patch, patch), (patch, patch), padding="VALID", dtype=dtype, rngs=rngs
        )
        self.cls_token = nnx.Param(normal(rngs.params(), (1, 1, dim)))
        self.reg_token = (
            nnx.Param(normal(rngs.params(), (1, registers, dim))) if registers else None
        )
        self.pos_embed = nnx.Param(normal(rngs.params(), (1, positions, dim)))
        rates = np.linspace(0.0, config.drop_path_rate, config.depth)
        self.blocks = nnx.List(
            [Block(config, float(rate), dtype=dtype, rngs=rngs) for rate in rates]
        )
        # of the foundation model: CellViT looks at block outputs alone, and only keeps it
        self.norm = layer_norm(dim, dtype=dtype, rngs=rngs)
        self.head = nnx.Linear(dim, config.num_tissues, rngs=rngs) if config.num_tissues else None

    def __call__(self, images: jax.Array) -> Encoded:
        images = self.fit(images)
        outputs = self.outputs(images)
        tissue = None if self.head is None else self.head(outputs[-1][:, 0])
        return Encoded(images, tuple(outputs[i - 1] for i in self.skip_layers), tissue)

    def features(self, images: jax.Array) -> dict[str, jax.Array]:
        """Tokens (B,h,w,D), without the registers, and cls token (B,D) after the last norm."""
        images = self.fit(images)
        h, w = (n // self.patch_size for n in images.shape[1:3])
        x = self.norm(self.outputs(images)[-1])
        return {"tokens": rearrange(x[:, -h * w :], "b (h w) d -> b h w d", h=h), "cls": x[:, 0]}

    def fit(self, images: jax.Array) -> jax.Array:
        """Images averaged down to the largest multiple of the patch."""
        return pool(images, tuple(n - n % self.patch_size for n in images.shape[1:3]))

    def outputs(self, images: jax.Array) -> list[jax.Array]:
        """The outputs (B,prefix+h·w,D) of all blocks."""
        x = self.patch_embed(images).astype(images.dtype)
        grid = x.shape[1:3]
        x = jnp.concatenate([*self.prefix(len(x)), rearrange(x, "b h w d -> b (h w) d")], axis=1)
        x = x + resize_positions(self.pos_embed[...], self.position_grid, grid)
        return run(self.blocks, x, remat=self.remat)

    def prefix(self, batch: int) -> list[jax.Array]:
        """The cls token and the registers for every image of a batch."""
        tokens = [token[...] for token in (self.cls_token, self.reg_token) if token is not None]
        return [jnp.broadcast_to(token, (batch, *token.shape[1:])) for token in tokens]


def resize_positions(positions: jax.Array, side: int, grid: tuple[int, ...]) -> jax.Array:
    """Position embeddings (1, prefix + side·side, D) for another grid; the prefix is kept.

    Bicubic with antialiasing; the stored grid itself is used as it is.
    """
    prefix, table = positions[:, : -side * side], positions[0, -side * side :]
    table = rearrange(table, "(h w) d -> h w d", h=side)
    table = jax.image.resize(table, (*grid, table.shape[-1]), "cubic", antialias=True)
    return jnp.concatenate([prefix, rearrange(table, "h w d -> 1 (h w) d")], axis=1)


def pool(images: jax.Array, size: tuple[int, ...]) -> jax.Array:
    """Images (B,H,W,C) averaged down to `size` (H,W), as PyTorch's adaptive average pooling."""
    if images.shape[1:3] == size:
        return images
    rows, columns = (
        jnp.asarray(mean_weights(n, m)) for n, m in zip(images.shape[1:3], size, strict=True)
    )
    return jnp.einsum("ih,jw,bhwc->bijc", rows, columns, images, precision="highest")


def mean_weights(n: int, m: int) -> np.ndarray:
    """The (m, n) float32 matrix whose row i averages inputs ⌊i·n/m⌋ to ⌈(i+1)·n/m⌉, exclusive."""
    output, source = np.arange(m)[:, None], np.arange(n)
    inside = (source >= output * n // m) & (source < -(-(output + 1) * n // m))
    return (inside / inside.sum(1, keepdims=True)).astype(np.float32)
