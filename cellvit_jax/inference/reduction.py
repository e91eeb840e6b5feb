"""What the host needs of a network's maps, a few bytes a pixel, computed where the maps are.

Edges are those of `cells.edges(hv, "fixed")`, summed in float32 and not in float64, which
accelerators lack, and whose 53 bits do not hold these sums exactly either, so that they hang on
the order. The two differ by up to 4 · 2⁻²⁴, and the partitions of all recorded tiles are the same.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from cellvit_jax.cells.energy import DERIVE, FIXED_LOWER, FIXED_UPPER, FULL_STEP, RADIUS, SMOOTH
from cellvit_jax.errors import InputError

MOST_TYPES = 255  # with the background
UNIT_SMOOTH = (SMOOTH / 2.0**20).astype(np.float32)
UNIT_DERIVE = (DERIVE * 2.0**20 / FULL_STEP).astype(np.float32)


def reduced(maps: Mapping[str, jax.Array], *, binary: bool = False) -> dict[str, jax.Array]:
    """`kinds` uint8 (B,H,W), `edge` float32 (B,H,W) and, unless `binary`, `probabilities` uint8.

    A kind is 0 outside of nuclei, else the type plus 1. Probabilities (B,H,W,classes) are in
    255ths. With `binary` every nucleus pixel is of type 1.
    """
    nucleus = jnp.argmax(maps["nuclei_binary_map"], -1).astype(jnp.uint8)
    edge = {"edge": edges(maps["hv_map"])}
    if binary:
        return edge | {"kinds": 2 * nucleus}
    logits = maps["nuclei_type_map"]
    if logits.shape[-1] > MOST_TYPES:
        raise InputError(f"networks of up to {MOST_TYPES} classes can segment, this has more")
    types = jnp.argmax(logits, -1).astype(jnp.uint8)
    shares = jnp.round(255 * jax.nn.softmax(logits)).astype(jnp.uint8)
    return edge | {"kinds": nucleus * (types + jnp.uint8(1)), "probabilities": shares}


def unpacked(maps: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """On the host: `binary` and `types` uint8, 0 outside of nuclei, in place of `kinds`."""
    kinds = maps.pop("kinds")
    binary = (kinds > 0).view(np.uint8)
    return maps | {"binary": binary, "types": kinds - binary}


def edges(hv: jax.Array) -> jax.Array:
    """Edge strength (B,H,W) in [0, 1] of distances (B,H,W,2), x then y."""
    distance = jnp.clip((hv.astype(jnp.float32) + 1) / 2, 0, 1)
    margin = (RADIUS, RADIUS)
    padded = jnp.pad(distance, ((0, 0), margin, margin, (0, 0)), mode="reflect")
    across = _slope(padded[..., 0], UNIT_SMOOTH, UNIT_DERIVE)
    down = _slope(padded[..., 1], UNIT_DERIVE, UNIT_SMOOTH)
    rise = jnp.minimum(across, down)  # the stronger edge is where the lesser rise is
    return 1 - jnp.clip((rise - FIXED_LOWER) / (FIXED_UPPER - FIXED_LOWER), 0, 1)


def _slope(padded: jax.Array, down: np.ndarray, across: np.ndarray) -> jax.Array:
    return _weighed(_weighed(padded, down, axis=1), across, axis=2)


def _weighed(x: jax.Array, weights: np.ndarray, *, axis: int) -> jax.Array:
    """The sum of neighbours along an axis, in the same order everywhere in a tile."""
    count = x.shape[axis] - len(weights) + 1
    parts = (
        weight * jax.lax.slice_in_dim(x, k, k + count, axis=axis)
        for k, weight in enumerate(weights)
        if weight
    )
    return sum(parts, jnp.zeros(()))
