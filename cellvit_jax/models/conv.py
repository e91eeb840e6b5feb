"""3×3 convolution whose gradients are quick on CPU too."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.typing import DTypeLike

from cellvit_jax.models.vit import precise

TAPS = [(row, col) for row in range(3) for col in range(3)]
BLOCK = 512  # pixels whose neighbourhoods stay in a core's cache


class Conv3x3(nnx.Conv):
    """`nnx.Conv` of 3×3 pixels, stride 1, with zeros beyond the edge."""

    def __init__(self, inputs: int, outputs: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        super().__init__(
            inputs, outputs, (3, 3), dtype=dtype, conv_general_dilated=_convolve, rngs=rngs
        )


def convolved(x: jax.Array, kernel: jax.Array, padding: Any) -> jax.Array:
    """(B,H,W,I) under a kernel (h,w,I,O), in the kernel's type."""
    return lax.conv_general_dilated(
        x.astype(kernel.dtype), kernel, (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _convolve(x: jax.Array, kernel: jax.Array, *_, **__) -> jax.Array:
    return _convolved(x, kernel)


@jax.custom_vjp
def _convolved(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return convolved(x, kernel, "SAME")


def _forward(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _convolved(x, kernel), (x, kernel)


def _backward(kept: tuple[jax.Array, jax.Array], slope: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = kept
    of_x = _convolved(slope, jnp.flip(kernel, (0, 1)).swapaxes(2, 3))
    of_kernel = lax.platform_dependent(x, slope, cpu=by_blocks, default=at_once)
    return of_x, of_kernel.astype(kernel.dtype)


_convolved.defvjp(_forward, _backward)


def at_once(x: jax.Array, slope: jax.Array) -> jax.Array:
    """The gradient of the kernel as XLA derives it, (3,3,I,O): a convolution by all of `slope`."""
    kernel = jax.ShapeDtypeStruct((3, 3, x.shape[-1], slope.shape[-1]), x.dtype)
    (gradient,) = jax.linear_transpose(lambda kernel: convolved(x, kernel, "SAME"), kernel)(slope)
    return gradient


def by_blocks(x: jax.Array, slope: jax.Array) -> jax.Array:
    """The same as products of a few rows' neighbourhoods, which add up.

    XLA's way takes up to fifteen times as long on CPU, but not where one block is all there is.
    Images are summed last, so that devices that share a batch exchange kernels alone.
    """
    images, height, width, inputs = x.shape
    rows = block_rows(height, width)
    if rows == height:
        return at_once(x, slope)
    framed = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    dtype = precise(x.dtype)

    def add(total: jax.Array, start: jax.Array) -> tuple[jax.Array, None]:
        near = lax.dynamic_slice_in_dim(framed, start, rows + 2, 1)
        seen = jnp.concatenate([near[:, r : r + rows, c : c + width] for r, c in TAPS], -1)
        here = lax.dynamic_slice_in_dim(slope, start, rows, 1)
        products = jnp.einsum("bhwo,bhwi->boi", here, seen, preferred_element_type=dtype)
        return total + products, None

    nothing = jnp.zeros((images, slope.shape[-1], 9 * inputs), dtype)
    total, _ = lax.scan(add, nothing, jnp.arange(0, height, rows))
    return total.sum(0).T.reshape(3, 3, inputs, -1).astype(x.dtype)


def block_rows(height: int, width: int) -> int:
    """The most rows that divide the height and have at most `BLOCK` pixels; at least one."""
    most = max(1, BLOCK // width)
    return max(rows for rows in range(1, min(most, height) + 1) if height % rows == 0)
