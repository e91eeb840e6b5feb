"""What a probe says of bags, whatever their size: one compiled shape for all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from scipy.special import softmax

from cellvit_jax.errors import InputError
from cellvit_jax.models import Abmil, LinearProbe
from cellvit_jax.probes.bags import Bags

ROWS = 1024  # patches per call


class Predicted(NamedTuple):
    """Of each bag the probabilities of classes `chances` (B,K), and if the probe has them, those of
    each patch (N,K), or the attention (N,) on it, which sums to 1 over a bag."""

    chances: np.ndarray
    patches: np.ndarray | None = None
    attention: np.ndarray | None = None


def predicted(model: Any, bags: Bags) -> Predicted:
    """What a `LinearProbe` or an `Abmil` says. Raises InputError for another network."""
    if isinstance(model, LinearProbe):
        patches = softmax(in_rows(lambda rows: _linear(model, rows), bags.vectors), axis=1)
        return Predicted(bags.pooled(patches), patches)
    if isinstance(model, Abmil):
        return _attended(model, bags)
    raise InputError("this checkpoint is no probe: give the folder that `probe linear|abmil` wrote")


def _attended(model: Abmil, bags: Bags) -> Predicted:
    """As the network itself would pool them, had it seen each bag at once."""
    hidden, scores = in_rows(lambda rows: _encoded(model, rows), bags.vectors)
    starts, owners = bags.starts[:-1], bags.owners
    weights = np.exp(scores - np.maximum.reduceat(scores, starts)[owners])
    attention = weights / np.add.reduceat(weights, starts)[owners]
    pooled = np.add.reduceat(attention[:, None] * hidden, starts, axis=0)
    logits = in_rows(lambda rows: _logits(model, rows), pooled)
    return Predicted(softmax(logits, axis=1), None, attention)


def in_rows(function: Callable[[jax.Array], Any], rows: np.ndarray) -> Any:
    """`function` of rows (N, D), called with `ROWS` of them at a time; zeros fill the last call."""
    parts = []
    for start in range(0, max(1, len(rows)), ROWS):
        part = rows[start : start + ROWS]
        padded = np.zeros((ROWS, *rows.shape[1:]), rows.dtype)
        padded[: len(part)] = part
        parts.append(jax.device_get(function(jax.device_put(padded))))
    return jax.tree.map(lambda *arrays: np.concatenate(arrays)[: len(rows)], *parts)


@jax.jit
def _linear(model: LinearProbe, rows: jax.Array) -> jax.Array:
    return model(rows)


@jax.jit
def _encoded(model: Abmil, rows: jax.Array) -> tuple[jax.Array, jax.Array]:
    return model.encode(rows)


@jax.jit
def _logits(model: Abmil, pooled: jax.Array) -> jax.Array:
    return model.logits(pooled)
