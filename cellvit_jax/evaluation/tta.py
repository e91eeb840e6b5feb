"""A network that looks at each tile in eight ways, by flips and quarter turns, and averages.

A view transposes the image or not, then turns its rows around or not, then its columns: all eight
symmetries of a square. What comes back is undone in the opposite order; hv distances are vectors,
so that their signs turn with the axes and their channels (x, then y) change places with them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from cellvit_jax.errors import InputError

View = tuple[bool, bool, bool]  # transposed, rows turned around, columns turned around
VIEWS: tuple[View, ...] = tuple(itertools.product((False, True), repeat=3))  # type: ignore[arg-type]
VECTORS = ("hv_map", "regression_map")  # (x, y) in the last axis
LOGITS = ("nuclei_binary_map", "nuclei_type_map", "tissue_types")


class EightViews(nnx.Module):
    """A CellViT in whose place this can be used: its maps are means over `VIEWS`.

    Logits become the logarithms of mean probabilities, so that a softmax gives these back. One
    view is computed after the other: eight times the time, hardly more memory.
    """

    def __init__(self, network: Callable[..., dict[str, jax.Array]]):
        self.network = network

    def __call__(self, images: jax.Array, *, tokens: bool = False) -> dict[str, jax.Array]:
        """The maps of normalised images (B, S, S, 3). Raises InputError for other than squares."""
        if images.shape[1] != images.shape[2]:
            raise InputError(f"eight views need square tiles, not {images.shape[1:3]}")
        views = jnp.stack([seen_so(images, view) for view in VIEWS])
        found = jax.lax.map(lambda one: _probabilities(self.network(one, tokens=tokens)), views)
        return {name: _mean(name, values) for name, values in found.items()}


def seen_so(values: jax.Array, view: View, *, vectors: bool = False) -> jax.Array:
    """Maps (B, S, S, C) in a view; with `vectors` their two channels are x and y."""
    transposed, rows, columns = view
    if transposed:
        values = values.swapaxes(1, 2)
        values = values[..., ::-1] if vectors else values
    return _turned(values, rows, columns, vectors)


def seen_back(values: jax.Array, view: View, *, vectors: bool = False) -> jax.Array:
    """The inverse of `seen_so`."""
    transposed, rows, columns = view
    values = _turned(values, rows, columns, vectors)
    if transposed:
        values = values.swapaxes(1, 2)
        values = values[..., ::-1] if vectors else values
    return values


def _turned(values: jax.Array, rows: bool, columns: bool, vectors: bool) -> jax.Array:
    axes = [axis for axis, turned in ((1, rows), (2, columns)) if turned]
    values = jnp.flip(values, axes)
    if vectors:
        values = values * jnp.array([-1 if columns else 1, -1 if rows else 1], values.dtype)
    return values


def _probabilities(maps: dict[str, Any]) -> dict[str, Any]:
    return {
        name: jax.nn.softmax(values.astype(jnp.float32)) if name in LOGITS else values
        for name, values in maps.items()
    }


def _mean(name: str, views: jax.Array) -> jax.Array:
    if views.ndim == 5:  # maps; the tissues of an image do not turn with it
        vectors = name in VECTORS
        restored = [
            seen_back(one, view, vectors=vectors) for one, view in zip(views, VIEWS, strict=True)
        ]
        views = jnp.stack(restored)
    mean = views.mean(0)
    return jnp.log(jnp.maximum(mean, jnp.finfo(mean.dtype).tiny)) if name in LOGITS else mean
