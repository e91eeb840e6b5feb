"""The same network for inference alone: fewer products, fewer bytes, the same outputs.

A convolution's norm goes into its weights. A transposed convolution and the 3×3 convolution behind
it, with nothing in between, are one 2×2 convolution of the coarse grid with four times the
outputs: about half of the products, and the fine grid in between is never made. What a trunk's
levels see joined is not joined: both parts are convolved and added.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import nnx
from jax.typing import DTypeLike

from cellvit_jax.models.attention import set_kernel
from cellvit_jax.models.cellvit import CellViT
from cellvit_jax.models.conv import convolved
from cellvit_jax.models.decoder import ConvBlock, DeconvBlock, SkipPaths, Trunk, Upsample, resize

Levels = tuple[jax.Array, jax.Array, jax.Array, jax.Array]
COMPOSABLE = 16  # patch size at which the decoder's last grid is the image's own


def folded(model: CellViT, *, attention: str = "xla") -> CellViT:
    """A network with the outputs of `model` in inference mode, which it does not change.

    `attention` names a kernel of `attention.KERNELS`: "xla" runs everywhere, "cudnn" on CUDA in
    bfloat16. Weights that change are stored in the network's compute type, the others are shared.
    Raises `InputError` for a kernel that is unknown, or that cannot run here or in that type.
    """
    fast = nnx.clone(model)
    set_kernel(fast, attention)
    compose = model.config.patch_size == COMPOSABLE
    fold = jax.jit(lambda paths, trunks: (FoldedPaths(paths), fold_trunks(trunks, compose)))
    fast.skip_paths, fast.trunks = fold(fast.skip_paths, fast.trunks)
    return nnx.view(fast, deterministic=True, raise_if_not_found=False)


def fold_trunks(trunks: nnx.Dict, compose: bool) -> nnx.Dict:
    """All trunks in their inference form."""
    return nnx.Dict({name: FoldedTrunk(trunk, compose) for name, trunk in trunks.items()})


class Conv(nnx.Module):
    """3×3 convolution with the norm behind it, without bias and activation."""

    def __init__(self, kernel: jax.Array, dtype: DTypeLike):
        self.kernel = nnx.Param(kernel.astype(dtype))

    def __call__(self, x: jax.Array) -> jax.Array:
        return convolved(x, self.kernel[...], "SAME").astype(jnp.float32)


class UpConv(nnx.Module):
    """2×2 transposed convolution of stride 2, then a 3×3 one, as one 2×2 convolution.

    Rows 2i − 1 and 2i of the output see rows i − 1 and i of the input, columns alike. The first
    bias reaches an output through the second kernel, from the pixels that are not beyond the
    border.
    """

    def __init__(self, up: Upsample, kernel: jax.Array, dtype: DTypeLike):
        self.kernel = nnx.Param(composed(up.kernel[...], kernel).astype(dtype))
        taps = jnp.einsum("m,tsmo->tso", up.bias[...], kernel, precision="highest")
        self.taps = nnx.Param(taps)

    def __call__(self, x: jax.Array) -> jax.Array:
        fine = convolved(x, self.kernel[...], ((1, 1), (1, 1)))
        fine = rearrange(fine, "b h w (a c o) -> b (h a) (w c) o", a=2, c=2)[:, 1:-1, 1:-1]
        return fine.astype(jnp.float32) + within(self.taps[...], *fine.shape[1:3])[None]


class ResizedUpConv(nnx.Module):
    """The same for an output of any size, which is what the grid between the two is resized to."""

    def __init__(self, up: Upsample, kernel: jax.Array, dtype: DTypeLike):
        self.up, self.conv = up, Conv(kernel, dtype)

    def __call__(self, x: jax.Array, size: tuple[int, ...]) -> jax.Array:
        return self.conv(resize(self.up(x), size))


class Folded(nnx.Module):
    """What a ConvBlock or DeconvBlock computes, from the same weights."""

    def __init__(self, block: ConvBlock | DeconvBlock):
        up, convolution = (
            (block.up, block.block) if isinstance(block, DeconvBlock) else (None, block)
        )
        kernel, bias = normed(convolution)
        self.dtype = convolution.conv.dtype
        self.bias = nnx.Param(bias)
        self.conv = UpConv(up, kernel, self.dtype) if up else Conv(kernel, self.dtype)

    def __call__(self, x: jax.Array) -> jax.Array:
        return activated(self.conv(x), self.bias[...], self.dtype)


class FoldedPaths(nnx.Module):
    """The skip paths, which all branches see."""

    def __init__(self, paths: SkipPaths):
        self.levels = nnx.List(
            [chain(level) for level in (paths.level0, paths.level1, paths.level2, paths.level3)]
        )

    def __call__(self, *inputs: jax.Array) -> tuple[jax.Array, ...]:
        return tuple(level(x) for level, x in zip(self.levels, inputs, strict=True))


class Level(nnx.Module):
    """A level of a trunk: from the level below, and the skip path's features, to its own."""

    def __init__(self, up: Upsample, blocks: nnx.Sequential, compose: bool):
        first, *others = blocks.layers
        kernel, bias = normed(first)
        self.dtype = first.conv.dtype
        inputs = kernel.shape[2] - up.kernel.shape[-1]
        self.skip = Conv(kernel[:, :, :inputs], self.dtype)
        self.up: Any = (UpConv if compose else ResizedUpConv)(up, kernel[:, :, inputs:], self.dtype)
        self.bias = nnx.Param(bias)
        self.others = nnx.List([Folded(block) for block in others])
        self.compose = compose

    def __call__(self, skip: jax.Array, x: jax.Array) -> jax.Array:
        below = self.up(x) if self.compose else self.up(x, skip.shape[1:3])
        x = activated(self.skip(skip) + below, self.bias[...], self.dtype)
        for block in self.others:
            x = block(x)
        return x


class FoldedTrunk(nnx.Module):
    """One branch from the last tokens up."""

    def __init__(self, trunk: Trunk, compose: bool):
        self.level3 = Level(trunk.up4, trunk.level3, compose=True)
        self.level2 = Level(trunk.up3, trunk.level2, compose=True)
        self.level1 = Level(trunk.up2, trunk.level1, compose=True)
        self.level0 = Level(trunk.up1, trunk.level0, compose=compose)

    def __call__(self, d: Levels, z4: jax.Array) -> jax.Array:
        x = self.level2(d[2], self.level3(d[3], z4))
        return self.level0(d[0], self.level1(d[1], x)).astype(jnp.float32)


def chain(blocks: nnx.Sequential) -> nnx.Sequential:
    """Blocks in their inference form, one after the other."""
    return nnx.Sequential(*[Folded(block) for block in blocks.layers])


def activated(x: jax.Array, bias: jax.Array, dtype: DTypeLike) -> jax.Array:
    """Bias and ReLU in float32, the result in the compute type."""
    return jax.nn.relu(x + bias.reshape(1, 1, 1, -1)).astype(dtype)


def normed(block: ConvBlock) -> tuple[jax.Array, jax.Array]:
    """Kernel and bias of a convolution with the BatchNorm behind it, in float32."""
    conv, norm = block.conv, block.norm
    scale = norm.scale[...] * jax.lax.rsqrt(norm.var[...] + norm.epsilon)
    bias = (conv.bias[...] - norm.mean[...]) * scale + norm.bias[...]
    return conv.kernel[...] * scale.reshape(1, 1, 1, -1), bias


def composed(up: jax.Array, kernel: jax.Array) -> jax.Array:
    """The one kernel (2,2,I,4·O) of a transposed convolution (2,2,I,M) and a 3×3 one (3,3,M,O).

    Rows 2i − 1 + a, a of 0 or 1, see four fine rows from 2i − 2 on: two of each coarse one.
    """
    window = np.zeros((2, 4, 3), np.float32)  # (a, fine row, row of the 3×3 kernel)
    for a in range(2):
        window[a, a : a + 3] = np.eye(3)
    fine = jnp.einsum("apt,cqs,tsmo->pqmaco", window, window, kernel, precision="highest")
    fine = rearrange(fine, "(u x) (v y) m a c o -> u x v y m a c o", u=2, v=2)
    coarse = jnp.einsum("xyim,uxvymaco->uviaco", up, fine, precision="highest")
    return rearrange(coarse, "u v i a c o -> u v i (a c o)")


def within(taps: jax.Array, h: int, w: int) -> jax.Array:
    """For every pixel (h,w,O), the sum of those taps (3,3,O) that are not beyond the border."""
    rows = jnp.einsum("ht,tso->hso", inside(h), taps, precision="highest")
    column = jnp.arange(w)[:, None]
    left = jnp.where(column == 0, 0, rows[:, :1])
    right = jnp.where(column == w - 1, 0, rows[:, 2:])
    return rows[:, 1:2] + left + right


def inside(n: int) -> np.ndarray:
    """(n, 3) of 0 and 1: which neighbours before, at and behind every place exist."""
    places = np.arange(n)[:, None] + np.arange(-1, 2)
    return ((places >= 0) & (places < n)).astype(np.float32)
