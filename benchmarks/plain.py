"""What a plain watershed needs, for the programs beside this one and for tests."""

from __future__ import annotations

import cv2
import numpy as np


def flood_inputs(binary: np.ndarray, edge: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Energy float64, markers and mask for a watershed, by OpenCV and NumPy alone."""
    mask = _large(binary) > 0
    energy = -cv2.GaussianBlur(
        np.where(mask, 1 - np.maximum(edge, 0).astype(np.float64), 0), (3, 3), 0
    )
    solid = np.pad((mask & (edge < np.float32(0.4))).astype(np.uint8), 1)
    _, outside = cv2.connectedComponents(1 - solid, connectivity=4)
    solid = (outside != outside[0, 0])[1:-1, 1:-1].astype(np.uint8)
    ellipse = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))
    return energy, _large(cv2.morphologyEx(solid, cv2.MORPH_OPEN, ellipse)), mask


def _large(mask: np.ndarray) -> np.ndarray:
    _, parts, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=4)
    large = stats[:, cv2.CC_STAT_AREA] >= 10
    large[0] = False
    return np.where(large[parts], parts, 0)
