"""Random changes of a training tile: image, instances and types always move together."""

from __future__ import annotations

import cv2
import numpy as np

from cellvit_jax.data.dataset import Sample
from cellvit_jax.stains import STAINS, UNSTAIN

# luma and two chroma axes from R, G, B (NTSC): turning the latter changes hue alone
YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])


def random_crop(
    sample: Sample, tile: int, zoom: tuple[float, float], rng: np.random.Generator
) -> Sample:
    """A random `tile`×`tile` window at a random magnification within `zoom` (log-uniform)."""
    height, width = sample.instances.shape
    factor = np.exp(rng.uniform(*np.log(zoom)))
    window = min(round(tile / factor), height, width)
    top, left = rng.integers(height - window + 1), rng.integers(width - window + 1)
    area = (slice(top, top + window), slice(left, left + window))
    smooth = cv2.INTER_AREA if window > tile else cv2.INTER_LINEAR
    types = None if sample.types is None else _resize(sample.types[area], tile, cv2.INTER_NEAREST)
    # OpenCV resizes no int32; a field never has 65,536 nuclei
    instances = sample.instances[area].astype(np.uint16)
    return Sample(
        sample.name,
        _resize(sample.image[area], tile, smooth),
        _resize(instances, tile, cv2.INTER_NEAREST).astype(np.int32),
        types,
    )


def _resize(array: np.ndarray, side: int, interpolation: int) -> np.ndarray:
    if array.shape[:2] == (side, side):
        return array
    return cv2.resize(array, (side, side), interpolation=interpolation)


def random_symmetry(sample: Sample, rng: np.random.Generator) -> Sample:
    """One of the eight symmetries of the square."""
    turns, flip = int(rng.integers(4)), bool(rng.integers(2))

    def move(array: np.ndarray) -> np.ndarray:
        array = np.rot90(array, turns)
        return np.ascontiguousarray(array[:, ::-1] if flip else array)

    types = None if sample.types is None else move(sample.types)
    return Sample(sample.name, move(sample.image), move(sample.instances), types)


def random_stain(image: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Other amounts of each stain, another light: (H,W,3) uint8 → uint8 (Tellez et al. 2018)."""
    density = -np.log((image.astype(np.float32) + 1) / 256)
    amounts = density @ UNSTAIN
    amounts *= rng.uniform(1 - strength, 1 + strength, 3).astype(np.float32)
    amounts += rng.uniform(-strength / 10, strength / 10, 3).astype(np.float32)
    light = rng.uniform(1 - strength / 4, 1 + strength / 4)
    return np.clip(light * 256 * np.exp(-(amounts @ STAINS)) - 1, 0, 255).astype(np.uint8)


def random_colour(image: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Another hue, saturation, contrast and brightness: (H,W,3) uint8 → uint8.

    At `strength` 1 hues turn by up to 0.1 of the circle, saturation goes from grey to double,
    contrast and brightness change by up to 0.4. Scanners and laboratories differ that much.
    """
    angle = strength * rng.uniform(-0.2, 0.2) * np.pi
    saturation, contrast = 1 + strength * rng.uniform([-1, -0.4], [1, 0.4])
    brightness = 255 * strength * rng.uniform(-0.2, 0.2)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    change = np.eye(3)
    change[1:, 1:] = saturation * turn
    matrix = contrast * np.linalg.inv(YIQ) @ change @ YIQ
    middle = image.mean()
    offset = (1 - contrast) * middle + brightness
    changed = image.astype(np.float32) @ matrix.T.astype(np.float32) + np.float32(offset)
    return np.clip(changed, 0, 255).astype(np.uint8)


def random_blur(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Gaussian blur of up to 1.5 px."""
    return cv2.GaussianBlur(image, (0, 0), rng.uniform(0.3, 1.5))


def random_noise(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Gaussian noise of a variance up to 50."""
    noise = rng.normal(0, rng.uniform(0, 50) ** 0.5, image.shape).astype(np.float32)
    return np.clip(image + noise, 0, 255).astype(np.uint8)
