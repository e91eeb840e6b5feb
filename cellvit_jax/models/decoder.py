"""The U-Net-like decoder of CellViT: skip paths, and trunks that go up from the tokens."""

from __future__ import annotations

from itertools import pairwise

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jax.typing import DTypeLike

from cellvit_jax.models.config import ModelConfig
from cellvit_jax.models.conv import Conv3x3
from cellvit_jax.models.vit import dropout, precise


class Upsample(nnx.Module):
    """2×2 transposed convolution of stride 2: one product, then every pixel becomes four.

    out[2y + a, 2x + b] = in[y, x] @ kernel[a, b] + bias. XLA runs this form several times faster
    on CPU than a dilated convolution, gradients above all.
    """

    def __init__(self, inputs: int, outputs: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        init = nnx.initializers.lecun_normal(in_axis=-2)
        self.dtype = dtype
        self.kernel = nnx.Param(init(rngs.params(), (2, 2, inputs, outputs)))
        self.bias = nnx.Param(jnp.zeros((outputs,)))

    def __call__(self, x: jax.Array) -> jax.Array:
        kernel, bias = self.kernel[...].astype(self.dtype), self.bias[...].astype(self.dtype)
        x = jnp.einsum("bhwi,acio->bhawco", x.astype(self.dtype), kernel)
        x = rearrange(x, "b h a w c o -> b (h a) (w c) o")
        return x + bias.reshape(1, 1, 1, -1)


class BatchNorm(nnx.BatchNorm):
    """BatchNorm as PyTorch has it: what the running variance moves towards is the unbiased one.

    In float32: in bfloat16 the running statistics would be rounded.
    """

    def __init__(self, features: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        super().__init__(features, momentum=0.9, epsilon=1e-5, dtype=precise(dtype), rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        kept = self.momentum * self.var[...]
        normalised = super().__call__(x)
        if not self.use_running_average:
            count = x.size // x.shape[-1]
            self.var[...] = kept + (self.var[...] - kept) * (count / max(count - 1, 1))
        return normalised


class ConvBlock(nnx.Module):
    """3×3 convolution, BatchNorm, ReLU, dropout."""

    def __init__(self, inputs: int, outputs: int, rate: float, *, dtype: DTypeLike, rngs: nnx.Rngs):
        self.conv = Conv3x3(inputs, outputs, dtype=dtype, rngs=rngs)
        self.norm = BatchNorm(outputs, dtype=dtype, rngs=rngs)
        self.dropout = dropout(rate, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.dropout(jax.nn.relu(self.norm(self.conv(x))))


class DeconvBlock(nnx.Module):
    """Transposed convolution, then a convolution block at twice the resolution."""

    def __init__(self, inputs: int, outputs: int, rate: float, *, dtype: DTypeLike, rngs: nnx.Rngs):
        self.up = Upsample(inputs, outputs, dtype=dtype, rngs=rngs)
        self.block = ConvBlock(outputs, outputs, rate, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.block(self.up(x))


def chain(
    block: type[nnx.Module], widths: tuple[int, ...], rate: float, **kwargs
) -> nnx.Sequential:
    """`block`s one after the other, through the given numbers of channels."""
    return nnx.Sequential(*[block(i, o, rate, **kwargs) for i, o in pairwise(widths)])


class SkipPaths(nnx.Module):
    """From the image and the first three skips to the features d0..d3 that all branches see."""

    def __init__(self, config: ModelConfig, *, dtype: DTypeLike, rngs: nnx.Rngs):
        w, dim, rate = config.widths, config.embed_dim, config.drop_rate
        kwargs = {"dtype": dtype, "rngs": rngs}
        self.level0 = chain(ConvBlock, (3, w.stem, w.level0), rate, **kwargs)
        self.level1 = chain(DeconvBlock, (dim, w.skip1, w.skip2, w.level1), rate, **kwargs)
        self.level2 = chain(DeconvBlock, (dim, w.skip1, w.level2), rate, **kwargs)
        self.level3 = chain(DeconvBlock, (dim, w.bottleneck), rate, **kwargs)

    def __call__(
        self, image: jax.Array, z1: jax.Array, z2: jax.Array, z3: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
        return self.level0(image), self.level1(z1), self.level2(z2), self.level3(z3)


class Trunk(nnx.Module):
    """From the last tokens up to the image's resolution, taking in d3..d0 on the way."""

    def __init__(self, config: ModelConfig, *, dtype: DTypeLike, rngs: nnx.Rngs):
        w, rate = config.widths, config.drop_rate
        kwargs = {"dtype": dtype, "rngs": rngs}
        neck = w.bottleneck
        self.up4 = Upsample(config.embed_dim, neck, **kwargs)
        self.level3 = chain(ConvBlock, (2 * neck, neck, neck, neck), rate, **kwargs)
        self.up3 = Upsample(neck, w.level2, **kwargs)
        self.level2 = chain(ConvBlock, (2 * w.level2, w.level2, w.level2), rate, **kwargs)
        self.up2 = Upsample(w.level2, w.level1, **kwargs)
        self.level1 = chain(ConvBlock, (2 * w.level1, w.level1, w.level1), rate, **kwargs)
        self.up1 = Upsample(w.level1, w.level0, **kwargs)
        self.level0 = chain(ConvBlock, (2 * w.level0, w.level0, w.level0), rate, **kwargs)

    def __call__(
        self, d: tuple[jax.Array, jax.Array, jax.Array, jax.Array], z4: jax.Array
    ) -> jax.Array:
        x = self.level3(_join(d[3], self.up4(z4)))
        x = self.level2(_join(d[2], self.up3(x)))
        x = self.level1(_join(d[1], self.up2(x)))
        return self.level0(_join(d[0], resize(self.up1(x), d[0].shape[1:3])))


def resize(x: jax.Array, size: tuple[int, ...]) -> jax.Array:
    """(B,H,W,C) at another (H,W): bilinear, not antialiased. At its own size it stays as it is."""
    return jax.image.resize(x, (x.shape[0], *size, x.shape[3]), "linear", antialias=False)


def _join(skip: jax.Array, x: jax.Array) -> jax.Array:
    return jnp.concatenate([skip, x.astype(skip.dtype)], axis=-1)
