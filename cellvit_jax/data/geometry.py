"""Changes of a sample that move pixels: image, instances and types by one and the same map.

Labels take the nearest pixel. What a change may tear apart it tells apart: see `separated`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import cv2
import numpy as np

from cellvit_jax.data.dataset import Sample
from cellvit_jax.data.instances import separated


def turn(sample: Sample, rng: np.random.Generator) -> Sample:
    """By none to three quarters of a circle."""
    quarters = int(rng.integers(4))
    if quarters == 0:
        return sample
    code = (cv2.ROTATE_90_COUNTERCLOCKWISE, cv2.ROTATE_180, cv2.ROTATE_90_CLOCKWISE)[quarters - 1]
    return _moved(sample, lambda array, _: cv2.rotate(array, code))


def flip_horizontally(sample: Sample, rng: np.random.Generator) -> Sample:
    """Left is right."""
    return _moved(sample, lambda array, _: cv2.flip(array, 1))


def flip_vertically(sample: Sample, rng: np.random.Generator) -> Sample:
    """Up is down."""
    return _moved(sample, lambda array, _: cv2.flip(array, 0))


def padded(sample: Sample, tile: int) -> Sample:
    """A field with a side shorter than `tile` is continued right and below by its mirror image."""
    height, width = sample.instances.shape
    missing = ((0, max(0, tile - height)), (0, max(0, tile - width)))
    if not np.any(missing):
        return sample

    def mirror(array: np.ndarray, _: bool) -> np.ndarray:
        return np.pad(array, (*missing, (0, 0))[: array.ndim], mode="symmetric")

    return _told_apart(_moved(sample, mirror))


def window(sample: Sample, top: int, left: int, height: int, width: int) -> Sample:
    """The part of a sample inside a rectangle."""
    area = (slice(top, top + height), slice(left, left + width))
    if sample.instances.shape == (height, width):
        return sample
    return _told_apart(_moved(sample, lambda array, _: array[area]))


def random_crop(
    sample: Sample, tile: int, zoom: tuple[float, float], rng: np.random.Generator
) -> Sample:
    """A random `tile`×`tile` window at a random magnification within `zoom` (log-uniform)."""
    sample = padded(sample, tile)
    factor = np.exp(rng.uniform(*np.log(zoom)))
    side = min(round(tile / factor), *sample.instances.shape)
    return _resized(_random_window(sample, side, rng), tile)


def sized_crop(sample: Sample, smallest: float, rng: np.random.Generator) -> Sample:
    """A random window of `smallest` to all of a square sample's side, enlarged to that side."""
    side = len(sample.instances)
    cut = int(rng.integers(max(1, round(smallest * side)), side + 1))
    return _resized(_random_window(sample, cut, rng), side)


def _random_window(sample: Sample, side: int, rng: np.random.Generator) -> Sample:
    height, width = sample.instances.shape
    top, left = (int(rng.integers(length - side + 1)) for length in (height, width))
    return window(sample, top, left, side, side)


def _resized(sample: Sample, side: int) -> Sample:
    if sample.instances.shape == (side, side):
        return sample
    smooth = cv2.INTER_AREA if len(sample.instances) > side else cv2.INTER_LINEAR

    def resize(array: np.ndarray, label: bool) -> np.ndarray:
        return cv2.resize(
            array, (side, side), interpolation=cv2.INTER_NEAREST_EXACT if label else smooth
        )

    return _told_apart(_moved(sample, resize))


def elastic(
    sample: Sample, sigma: float, alpha: float, affine: float, rng: np.random.Generator
) -> Sample:
    """An affine change, then an elastic one (Simard et al. 2003), both as Albumentations has them.

    Three points a third of the image apart move by up to `affine` pixels; every pixel by a
    Gaussian mean, of width `sigma`, of uniform displacements, times `alpha`. Beyond the border is
    the mirror image. (With the published values the elastic part stays under 0.02 px.)
    """
    height, width = sample.instances.shape
    third = min(height, width) // 3
    corners = third * np.array([[1, 1], [1, -1], [-1, -1]])
    points = (np.array([width, height]) // 2 + corners).astype(np.float32)
    moved = points + rng.uniform(-affine, affine, (3, 2)).astype(np.float32)
    back = cv2.getAffineTransform(moved, points).astype(np.float32)
    shift = alpha * _smooth_noise((height, width), sigma, rng)
    at = np.stack(np.meshgrid(*map(np.arange, (width, height))), axis=-1).astype(np.float32)
    source = (at + shift) @ back[:, :2].T + back[:, 2]

    def warp(array: np.ndarray, label: bool) -> np.ndarray:
        how = cv2.INTER_NEAREST if label else cv2.INTER_LINEAR
        return cv2.remap(array, source, None, how, borderMode=cv2.BORDER_REFLECT_101)

    return _told_apart(_moved(sample, warp))


def _smooth_noise(shape: tuple[int, int], sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Uniform noise from −1 to 1 under a Gaussian mean of width `sigma`: (H,W,2) float32.

    It is made on a coarser grid, whose points are means of `step`² pixels: so their noise is `step`
    times smaller.
    """
    step = max(1, int(sigma // 4))
    height, width = (-(-length // step) for length in shape)
    noise = rng.random((height, width, 2), np.float32) * 2 - 1
    noise = cv2.GaussianBlur(noise, (0, 0), sigma / step) / step
    return cv2.resize(noise, shape[::-1], interpolation=cv2.INTER_LINEAR)


def _moved(sample: Sample, move: Callable[[np.ndarray, bool], np.ndarray]) -> Sample:
    """`move(array, label)` of each array; int32 goes as four bytes, for OpenCV moves no int32."""
    height, width = sample.instances.shape
    octets = np.ascontiguousarray(sample.instances, np.int32).view(np.uint8)
    instances = np.ascontiguousarray(move(octets.reshape(height, width, 4), True))
    return dataclasses.replace(
        sample,
        image=move(sample.image, False),
        instances=instances.view(np.int32)[..., 0],
        types=None if sample.types is None else move(sample.types, True),
    )


def _told_apart(sample: Sample) -> Sample:
    return dataclasses.replace(sample, instances=separated(sample.instances))
