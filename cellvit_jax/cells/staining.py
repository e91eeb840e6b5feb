"""How much haematoxylin is in every instance."""

from __future__ import annotations

import numpy as np

from cellvit_jax.cells.compiled import compiled
from cellvit_jax.errors import InputError
from cellvit_jax.stains import UNSTAIN

# -log10((v + 1) / 256) of the value v; black is finite, white is 0
DENSITY = -np.log10((np.arange(256) + 1) / 256)


def stain(image: np.ndarray, instances: np.ndarray, count: int) -> dict[str, np.ndarray]:
    """Columns of `Cells` for instances 1..`count` of an integer map (H, W), float32 each.

    `haematoxylin_mean` and `haematoxylin_sd`: mean and standard deviation over the instance's
    pixels of the optical density, -log10((value + 1) / 256) of R, G and B, of which the
    haematoxylin's share is taken by the matrix of Ruifrok & Johnston (2001); not clipped, so a
    pixel of mere eosin may be a little under zero. `image` uint8 (H, W, 3) holds the same pixels as
    `instances`. An id without pixels has NaN. Raises `InputError` if the sizes differ.
    """
    if image.dtype != np.uint8 or image.shape != (*instances.shape, 3):
        raise InputError(
            f"an instance map of {instances.shape} needs an RGB image of the same pixels, uint8, "
            f"not {image.dtype} of shape {image.shape}"
        )
    haematoxylin = UNSTAIN[:, 0, None].astype(np.float64) * DENSITY
    pixels, sums, squares = _sums(
        image, instances.astype(np.int32, copy=False), count, haematoxylin
    )
    with np.errstate(invalid="ignore"):
        mean = sums / pixels
        sd = np.sqrt(np.maximum(squares / pixels - mean**2, 0))
    columns = {"haematoxylin_mean": mean, "haematoxylin_sd": sd}
    return {name: values.astype(np.float32) for name, values in columns.items()}


@compiled
def _sums(image, inst, count, amounts):
    pixels, sums, squares = np.zeros(count), np.zeros(count), np.zeros(count)
    for r in range(inst.shape[0]):
        for c in range(inst.shape[1]):
            if 0 < inst[r, c] <= count:
                i = inst[r, c] - 1
                red, green, blue = image[r, c]
                amount = amounts[0, red] + amounts[1, green] + amounts[2, blue]
                pixels[i] += 1
                sums[i] += amount
                squares[i] += amount * amount
    return pixels, sums, squares
