"""Random changes of how an image looks, nothing moved: (H,W,3) uint8 → (H,W,3) uint8."""

from __future__ import annotations

import cv2
import numpy as np

from cellvit_jax.errors import MissingExtraError
from cellvit_jax.stains import STAINS, UNSTAIN

# luma and two chroma axes from R, G, B (NTSC): turning the latter changes hue alone
YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])


def random_stain(image: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Other amounts of each stain, another light (Tellez et al. 2018)."""
    density = -np.log((image.astype(np.float32) + 1) / 256)
    amounts = density @ UNSTAIN
    amounts *= rng.uniform(1 - strength, 1 + strength, 3).astype(np.float32)
    amounts += rng.uniform(-strength / 10, strength / 10, 3).astype(np.float32)
    light = rng.uniform(1 - strength / 4, 1 + strength / 4)
    return _pixels(light * 256 * np.exp(-(amounts @ STAINS)) - 1)


def random_colour(image: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Another hue, saturation, contrast and brightness.

    At `strength` 1 hues turn by up to 0.1 of the circle, saturation goes from grey to double,
    contrast and brightness change by up to 0.4. Scanners and laboratories differ that much.
    """
    hue = strength * rng.uniform(-0.1, 0.1)
    saturation, contrast = 1 + strength * rng.uniform([-1, -0.4], [1, 0.4])
    shift = 255 * strength * rng.uniform(-0.2, 0.2)
    return _recoloured(image, hue, saturation, contrast, shift)


def random_jitter(
    image: np.ndarray, amounts: tuple[float, float, float, float], rng: np.random.Generator
) -> np.ndarray:
    """Brightness, contrast and saturation times 1 ± amount, hue ± amount of the circle."""
    brightness, contrast, saturation = 1 + rng.uniform(-1, 1, 3) * amounts[:3]
    hue = rng.uniform(-amounts[3], amounts[3])
    return _recoloured(_pixels(image * np.float32(brightness)), hue, saturation, contrast, 0.0)


def _recoloured(
    image: np.ndarray, hue: float, saturation: float, contrast: float, shift: float
) -> np.ndarray:
    angle = 2 * np.pi * hue
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    change = np.eye(3)
    change[1:, 1:] = saturation * turn
    matrix = contrast * np.linalg.inv(YIQ) @ change @ YIQ
    offset = (1 - contrast) * image.mean() + shift
    return _pixels(image.astype(np.float32) @ matrix.T.astype(np.float32) + np.float32(offset))


def random_softness(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Gaussian blur of up to 1.5 px."""
    return cv2.GaussianBlur(image, (0, 0), rng.uniform(0.3, 1.5))


def random_blur(image: np.ndarray, largest: int, rng: np.random.Generator) -> np.ndarray:
    """The mean over a square of 3, 5, … up to `largest` pixels a side."""
    side = int(rng.choice(np.arange(3, largest + 1, 2)))
    return cv2.blur(image, (side, side))


def random_noise(image: np.ndarray, variance: float, rng: np.random.Generator) -> np.ndarray:
    """Gaussian noise of up to `variance`."""
    noise = rng.standard_normal(image.shape, np.float32)
    return _pixels(image + noise * np.float32(rng.uniform(0, variance) ** 0.5))


def downscaled(image: np.ndarray, factor: float, rng: np.random.Generator) -> np.ndarray:
    """`factor` times as many pixels a side, each of them repeated."""
    height, width = image.shape[:2]
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    small = cv2.resize(image, size, interpolation=cv2.INTER_NEAREST)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_NEAREST)


def random_zoom_blur(image: np.ndarray, largest: float, rng: np.random.Generator) -> np.ndarray:
    """The mean of the image and of enlargements of it about its centre, up to `largest`."""
    factors = np.arange(1.0, rng.uniform(1.0, largest), rng.uniform(0.01, 0.03))
    height, width = image.shape[:2]
    total = image.astype(np.float32)
    for factor in factors:
        about = np.array([[factor, 0, 0], [0, factor, 0]])
        about[:, 2] = (1 - factor) * (np.array([width, height]) - 1) / 2
        total += cv2.warpAffine(image, about, (width, height), borderMode=cv2.BORDER_REFLECT_101)
    return _pixels(total / (len(factors) + 1) + 0.5)


def random_superpixels(
    image: np.ndarray, segments: int, share: float, rng: np.random.Generator
) -> np.ndarray:
    """About `share` of some `segments` superpixels take their mean colour.

    Superpixels are SLIC's (Achanta et al. 2012), of the image at half its size: they look alike and
    take a quarter of the time.
    """
    height, width = image.shape[:2]
    half = cv2.resize(image, ((width + 1) // 2, (height + 1) // 2), interpolation=cv2.INTER_AREA)
    labels = _slic()(half, n_segments=segments, compactness=10, start_label=0).astype(np.uint16)
    labels = cv2.resize(labels, (width, height), interpolation=cv2.INTER_NEAREST_EXACT).ravel()
    pixels = image.reshape(-1, 3)
    count = np.maximum(np.bincount(labels), 1)
    means = np.stack([np.bincount(labels, pixels[:, channel]) / count for channel in range(3)], 1)
    replaced = rng.random(len(count)) < share
    return np.where(replaced[labels, None], _pixels(means)[labels], pixels).reshape(image.shape)


def _slic():
    try:
        from skimage.segmentation import slic
    except ImportError as error:
        raise MissingExtraError("scikit-image", "train") from error
    return slic


def _pixels(values: np.ndarray) -> np.ndarray:
    return np.clip(values, 0, 255).astype(np.uint8)
