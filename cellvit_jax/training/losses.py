"""The losses of CellViT's three branches (Hörst et al. 2024), and their weighted sum.

Predictions and one-hot targets are (B, H, W, C); sums run over batch and pixels. `valid` masks
pixels out of a loss, for images whose types nobody annotated: (B, H, W, 1) of 0 and 1, or 1.
"""

from __future__ import annotations

from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

Valid: TypeAlias = jax.Array | float


def cross_entropy(p: jax.Array, t: jax.Array, valid: Valid = 1.0) -> jax.Array:
    """Mean over pixels of −Σ t·log p, for probabilities `p` (renormalised, clipped at 1e-7)."""
    p = jnp.clip(p / p.sum(-1, keepdims=True), 1e-7, 1 - 1e-7)
    valid = jnp.broadcast_to(valid, (*p.shape[:-1], 1))
    return -(valid * t * jnp.log(p)).sum() / jnp.maximum(valid.sum(), 1)


def dice(p: jax.Array, t: jax.Array, valid: Valid = 1.0) -> jax.Array:
    """Soft Dice loss of probabilities `p`, summed over classes."""
    p, t = p * valid, t * valid
    intersection, total = (p * t).sum((0, 1, 2)), (p + t).sum((0, 1, 2))
    return (1 - (2 * intersection + 1e-3) / (total + 1e-3)).sum()


def tversky(p: jax.Array, t: jax.Array, axes: tuple[int, ...], valid: Valid = 1.0) -> jax.Array:
    """Tversky index with 0.7 on missed and 0.3 on false pixels, summed over `axes`."""
    true, false = ((valid * x).sum(axes) for x in (t * p, (1 - t) * p))
    missed = (valid * t * (1 - p)).sum(axes)
    return (true + 1e-6) / (true + 0.7 * missed + 0.3 * false + 1e-6)


def focal_tversky(p: jax.Array, t: jax.Array) -> jax.Array:
    """Focal Tversky loss (1 − T)^(4/3) over both channels of a binary map pooled."""
    return _focal(tversky(p, t, (0, 1, 2, 3)))


def focal_tversky_per_class(
    p: jax.Array, t: jax.Array, class_weights: jax.Array | float = 1.0, valid: Valid = 1.0
) -> jax.Array:
    """Focal Tversky loss of each class, weighted and summed."""
    return (_focal(tversky(p, t, (0, 1, 2), valid)) * class_weights).sum()


def _focal(index: jax.Array) -> jax.Array:
    # the power's slope is infinite where the loss is exactly 0: keep gradients finite there
    loss = 1 - index
    positive = loss > 0
    return jnp.where(positive, jnp.where(positive, loss, 1.0) ** (4 / 3), 0.0)


def mse(p: jax.Array, t: jax.Array) -> jax.Array:
    """Mean squared error."""
    return jnp.mean((p - t) ** 2)


def msge(hv: jax.Array, true_hv: jax.Array, focus: jax.Array) -> jax.Array:
    """Squared error of the hv map's gradients inside nuclei (HoVer-Net, Graham et al. 2019).

    `hv` and `true_hv` are (B, H, W, 2); `focus` is the nucleus mask (B, H, W).
    """
    focus = focus[..., None]
    difference = hv_gradient(hv - true_hv)  # which is linear
    return (focus * difference**2).sum() / (2 * focus.sum() + 1e-8)


def hv_gradient(hv: jax.Array) -> jax.Array:
    """5×5 derivative of channel 0 and channel 1 of (B, H, W, 2), zero-padded."""
    kernel = jnp.asarray(hv_kernel(), hv.dtype)
    return jax.lax.conv_general_dilated(
        hv,
        kernel,
        (1, 1),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=2,
    )


def hv_kernel() -> np.ndarray:
    """(5, 5, 1, 2) float64. Channel 0 of hv meets i/(i² + j²) with i the *row*, as trained with."""
    i, j = np.meshgrid(np.arange(-2.0, 3.0), np.arange(-2.0, 3.0), indexing="ij")
    square = i**2 + j**2 + 1e-15
    return np.stack([i / square, j / square], axis=-1)[:, :, None]


def tissue_cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Mean of the cross-entropy of logits (B, T) over those images whose label (B,) is not -1."""
    known = labels >= 0
    log_p = jnp.take_along_axis(jax.nn.log_softmax(logits), jnp.maximum(labels, 0)[:, None], 1)
    return -(known * log_p[:, 0]).sum() / jnp.maximum(known.sum(), 1)
