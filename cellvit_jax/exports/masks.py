"""Masks that were asked for one by one: black and white images, and a picture of what was asked."""

from __future__ import annotations

import os
from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image

from cellvit_jax.exports import overlay
from cellvit_jax.files import atomic_open

# the first colours tell masks apart, the others what was pointed at
COLORS = ((34, 221, 77), (35, 92, 236), (254, 255, 0), (255, 159, 68), (92, 20, 186))
ON, BESIDE, BOX, RIM = (34, 160, 60), (220, 30, 30), (255, 255, 255), (20, 20, 20)
OPACITY = 0.35


def write(mask: np.ndarray, path: str | os.PathLike[str]) -> None:
    """Write a bool (H, W) mask to `path` as a PNG of 0 and 255. Raises OutputError."""
    with atomic_open(path) as file:
        Image.fromarray(mask.astype(np.uint8) * 255).save(file, format="PNG")


def write_picture(
    image: np.ndarray,
    masks: Sequence[np.ndarray],
    path: str | os.PathLike[str],
    *,
    points: np.ndarray,
    labels: np.ndarray,
    boxes: np.ndarray,
) -> None:
    """Write `draw(image, ...)` to `path` as a PNG. Raises OutputError."""
    picture = draw(image, masks, points=points, labels=labels, boxes=boxes)
    with atomic_open(path) as file:
        Image.fromarray(picture).save(file, format="PNG", compress_level=3)


def draw(
    image: np.ndarray,
    masks: Sequence[np.ndarray],
    *,
    points: np.ndarray,
    labels: np.ndarray,
    boxes: np.ndarray,
) -> np.ndarray:
    """The RGB `image` (H, W, 3) uint8 with tinted `masks`, and the prompts that led to them.

    Points (N,2) are green dots with label 1, red ones with label 0; boxes (P,4) are white. Small
    images are enlarged and large ones reduced, as `overlay.draw` does it.
    """
    canvas, scale = overlay.fitted(image)
    for i, mask in enumerate(masks):
        _tint(canvas, mask, COLORS[i % len(COLORS)])
    for x0, y0, x1, y1 in _scaled(np.reshape(boxes, (-1, 2, 2)), scale).reshape(-1, 4).tolist():
        cv2.rectangle(canvas, (x0, y0), (x1, y1), BOX, 2, cv2.LINE_AA)
    for point, label in zip(_scaled(points, scale).tolist(), labels, strict=True):
        cv2.circle(canvas, point, 7, RIM, cv2.FILLED, cv2.LINE_AA)
        cv2.circle(canvas, point, 5, ON if label else BESIDE, cv2.FILLED, cv2.LINE_AA)
    return canvas


def _tint(canvas: np.ndarray, mask: np.ndarray, color: tuple[int, int, int]) -> None:
    size = canvas.shape[1::-1]
    inside = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    tinted = canvas[inside > 0] * (1 - OPACITY) + np.array(color) * OPACITY
    canvas[inside > 0] = tinted.astype(np.uint8)
    outlines, _ = cv2.findContours(inside, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(canvas, outlines, -1, color, 2, cv2.LINE_AA)


def _scaled(points: np.ndarray, scale: float) -> np.ndarray:
    return np.rint((points + 0.5) * scale - 0.5).astype(int)
