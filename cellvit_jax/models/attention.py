"""Attention through kernels to choose from, all of the same numbers.

A kernel takes queries, already scaled, keys and values, all (B, heads, N, d), and returns what was
attended to in the same shape. The dimension of the values may differ from that of the others.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jax.typing import DTypeLike

from cellvit_jax.errors import InputError
from cellvit_jax.models import sam_vit, vit

Kernel = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
QUERIES = 256  # at once, where all weights together would not stay in a cache
MANY = 2048
ALIGNED, EVEN = 8, 2  # of which dimensions and, with gradients, tokens are multiples in cuDNN


def plain(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """Two products around a softmax in float32; long sequences by blocks of queries."""
    if q.shape[2] <= MANY:
        return whole(q, k, v)
    padded = jnp.pad(q, ((0, 0), (0, 0), (0, -q.shape[2] % QUERIES), (0, 0)))
    blocks = rearrange(padded, "b h (i n) d -> i b h n d", n=QUERIES)
    attended = jax.lax.map(lambda block: whole(block, k, v), blocks)
    return rearrange(attended, "i b h n d -> b h (i n) d")[:, :, : q.shape[2]]


def whole(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """The same for sequences of any length, with the weights of all pairs of tokens at once."""
    scores = jnp.einsum("bhqd,bhkd->bhqk", q, k)
    weights = jax.nn.softmax(scores.astype(jnp.float32)).astype(v.dtype)
    return jnp.einsum("bhqk,bhkd->bhqd", weights, v)


def cudnn(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """cuDNN's fused attention: CUDA alone, bfloat16 or float16, no scores in memory.

    Queries and keys have up to 128 dimensions, from Hopper on up to 256.
    """
    b, _, n, width = q.shape
    q, k, values = (_widened(x, -n % EVEN, width + -width % ALIGNED) for x in (q, k, v))
    # gradients want an even number of tokens: those beyond the last are not looked at
    lengths = jnp.full(b, n, jnp.int32) if n % EVEN else None
    attended = jax.nn.dot_product_attention(
        q,
        k,
        values,
        scale=1.0,
        query_seq_lengths=lengths,
        key_value_seq_lengths=lengths,
        implementation="cudnn",
    )
    return attended.swapaxes(1, 2)[:, :, :n, : v.shape[-1]]


def _widened(x: jax.Array, more: int, width: int) -> jax.Array:
    """(B, heads, N, d) as (B, N + more, heads, width)."""
    return jnp.pad(x, ((0, 0), (0, 0), (0, more), (0, width - x.shape[-1]))).swapaxes(1, 2)


KERNELS: dict[str, Kernel] = {"xla": plain, "cudnn": cudnn}


class Attention(nnx.Module):
    """Self-attention over a sequence, through a kernel."""

    def __init__(self, attention: vit.Attention, kernel: str):
        self.num_heads = attention.num_heads
        self.qkv, self.proj = attention.qkv, attention.proj
        self.kernel = KERNELS[kernel]

    def __call__(self, x: jax.Array) -> jax.Array:
        q, k, v = rearrange(
            self.qkv(x), "b n (three h d) -> three b h n d", three=3, h=self.num_heads
        )
        attended = self.kernel(q * q.shape[-1] ** -0.5, k, v)
        return self.proj(rearrange(attended, "b h n d -> b n (h d)"))


class GridAttention(nnx.Module):
    """SAM's attention, whose relative positions become further dimensions of queries and keys.

    A query's products with the embeddings of all rows and columns are appended to it, and to each
    key the one-hot codes of its own row and column: their product is the bias, which is thus never
    held for all pairs.
    """

    def __init__(self, attention: sam_vit.Attention, kernel: str):
        self.num_heads = attention.num_heads
        self.qkv, self.proj = attention.qkv, attention.proj
        self.rel_pos_h, self.rel_pos_w = attention.rel_pos_h, attention.rel_pos_w
        self.kernel = KERNELS[kernel]

    def __call__(self, x: jax.Array) -> jax.Array:
        h, w = x.shape[1:3]
        q, k, v = rearrange(
            self.qkv(x), "b h w (three n d) -> three b n h w d", three=3, n=self.num_heads
        )
        rows = sam_vit.relative(self.rel_pos_h[...], h).astype(q.dtype)
        columns = sam_vit.relative(self.rel_pos_w[...], w).astype(q.dtype)
        above = jnp.einsum("bnhwd,hid->bnhwi", q, rows)
        beside = jnp.einsum("bnhwd,wjd->bnhwj", q, columns)
        q = jnp.concatenate([q * q.shape[-1] ** -0.5, above, beside], -1)
        k = jnp.concatenate([k, jnp.broadcast_to(places(h, w, k.dtype), (*k.shape[:4], h + w))], -1)
        attended = self.kernel(*(rearrange(t, "b n h w d -> b n (h w) d") for t in (q, k, v)))
        return self.proj(rearrange(attended, "b n (h w) d -> b h w (n d)", h=h))


def places(h: int, w: int, dtype: jnp.dtype) -> jax.Array:
    """The one-hot codes (h, w, h + w) of every place's row and column."""
    rows = jnp.broadcast_to(jnp.eye(h, dtype=dtype)[:, None], (h, w, h))
    columns = jnp.broadcast_to(jnp.eye(w, dtype=dtype), (h, w, w))
    return jnp.concatenate([rows, columns], -1)


@functools.singledispatch
def with_kernel(attention: nnx.Module, kernel: str) -> nnx.Module:
    """The attention of an encoder's block, computed by another kernel."""
    raise TypeError(f"no form of {type(attention).__name__} for inference")


with_kernel.register(vit.Attention, Attention)
with_kernel.register(sam_vit.Attention, GridAttention)


def set_kernel(model: Any, kernel: str) -> None:
    """Let the encoder of a network compute its attention by a kernel of `KERNELS`, in place.

    Weights keep their names; of their dropout nothing is left. Raises `InputError` for a kernel
    that is unknown, or that cannot run here or in the encoder's type.
    """
    blocks = model.encoder.blocks
    check_kernel(kernel, blocks[0].attn.qkv.dtype)
    for block in blocks:
        block.attn = with_kernel(block.attn, kernel)


def check_kernel(kernel: str, dtype: DTypeLike) -> None:
    """Raises `InputError` for a kernel that cannot be used here in that type."""
    if kernel not in KERNELS:
        raise InputError(f"attention is one of {', '.join(KERNELS)}, not {kernel!r}")
    if kernel == "xla":
        return
    if jax.default_backend() != "gpu":
        raise InputError(f"{kernel} attention needs a CUDA device: take xla")
    if jnp.dtype(dtype) == jnp.float32:
        raise InputError(f"{kernel} attention computes in bfloat16: take that type")
