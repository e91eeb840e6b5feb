"""How much haematoxylin is in every instance."""

from __future__ import annotations

import numpy as np

from cellvit_jax.errors import InputError
from cellvit_jax.stains import UNSTAIN

# of the value v in R, G and B: its density -log10((v + 1) / 256) times the haematoxylin's share of
# that; black is finite, white is 0
AMOUNTS = (UNSTAIN[:, 0, None] * -np.log10((np.arange(256) + 1) / 256)).astype(np.float32)


def haematoxylin(pixels: np.ndarray) -> np.ndarray:
    """Optical density of the haematoxylin in RGB pixels: (..., 3) uint8 → (...) float32.

    Colours are told apart by the matrix of Ruifrok & Johnston (2001); not clipped, so a pixel of
    mere eosin may be a little under zero.
    """
    red, green, blue = (AMOUNTS[i].take(pixels[..., i]) for i in range(3))
    return red + green + blue


def stain(image: np.ndarray, instances: np.ndarray, count: int) -> dict[str, np.ndarray]:
    """Columns of `Cells` for instances 1..`count` of an integer map (H, W), float32 each.

    `haematoxylin_mean` and `haematoxylin_sd`: mean and standard deviation of `haematoxylin` over
    the instance's pixels. `image` uint8 (H, W, 3) holds the same pixels as `instances`. An id
    without pixels has NaN. Raises `InputError` if the sizes differ.
    """
    if image.dtype != np.uint8 or image.shape != (*instances.shape, 3):
        raise InputError(
            f"an instance map of {instances.shape} needs an RGB image of the same pixels, uint8, "
            f"not {image.dtype} of shape {image.shape}"
        )
    inside = instances > 0
    return stained(haematoxylin(image[inside]), instances[inside], count)


def stained(density: np.ndarray, ids: np.ndarray, count: int) -> dict[str, np.ndarray]:
    """The columns of `stain` for pixels (N,) of that density, in instances 1..`count`."""
    pixels, sums, squares = (
        np.bincount(ids, weights, minlength=count + 1)[1 : count + 1]
        for weights in (None, density, np.square(density, dtype=np.float64))
    )
    with np.errstate(invalid="ignore"):
        mean = sums / pixels
        sd = np.sqrt(np.maximum(squares / pixels - mean**2, 0))
    columns = {"haematoxylin_mean": mean, "haematoxylin_sd": sd}
    return {name: values.astype(np.float32) for name, values in columns.items()}
