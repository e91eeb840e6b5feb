"""The stains of H&E, as directions in optical density: known ones, and those of an image."""

from __future__ import annotations

import dataclasses

import numpy as np

# Ruifrok & Johnston 2001: optical densities of haematoxylin, eosin and the residual in R, G, B
STAINS = np.array([[0.650, 0.704, 0.286], [0.072, 0.990, 0.105], [0.268, 0.570, 0.776]], np.float32)
# density (..., 3) @ UNSTAIN is the amount of each stain
UNSTAIN = np.linalg.inv(STAINS).astype(np.float32)

LEAST_DENSITY = 0.15  # mean of R, G, B; below it, a pixel is glass
LEAST_SHARE = 0.01  # of the pixels that must be tissue for an image to have stains


@dataclasses.dataclass(frozen=True)
class Staining:
    """How an image is stained: each stain's direction in density (natural logarithm), of length 1.

    `strongest` are the 99th percentiles of haematoxylin and eosin. The defaults are Macenko's
    reference.
    """

    haematoxylin: tuple[float, float, float] = (0.5626, 0.7201, 0.4062)
    eosin: tuple[float, float, float] = (0.2159, 0.8012, 0.5581)
    strongest: tuple[float, float] = (1.9705, 1.0308)


REFERENCE = Staining()


def staining(image: np.ndarray) -> Staining | None:
    """The staining of an (H,W,3) uint8 image (Macenko et al. 2009), None where there is no tissue.

    Densities of tissue lie in a plane; the stains are its extreme directions, but for 1 % of the
    pixels on either side. Of the two, haematoxylin is the bluer one: it takes more of the red than
    of the blue. (By red alone, as is customary, fields with little eosin come out inverted.)
    """
    density = _density(image).reshape(-1, 3)
    tissue = density[density.mean(1) > LEAST_DENSITY]
    if len(tissue) < max(2, LEAST_SHARE * len(density)):
        return None
    plane = np.linalg.eigh(np.cov(tissue.T))[1][:, 1:]
    plane = plane * np.where(plane.sum(0) < 0, -1, 1)
    angle = np.arctan2(*(tissue @ plane).T)
    ends = np.percentile(angle, (1, 99))
    stains = np.stack([np.sin(ends), np.cos(ends)], axis=1) @ plane.T
    haematoxylin, eosin = sorted(stains.tolist(), key=lambda stain: stain[2] - stain[0])
    amounts = _amounts(tissue, np.array([haematoxylin, eosin]))
    strongest = np.percentile(amounts, 99, axis=0)
    return Staining(tuple(haematoxylin), tuple(eosin), tuple(strongest.tolist()))


def stained_as(image: np.ndarray, reference: Staining = REFERENCE) -> np.ndarray:
    """An (H,W,3) uint8 image with the stains of `reference`; one without tissue stays as it is."""
    return restained(image, staining(image), reference)


def restained(
    image: np.ndarray, own: Staining | None, reference: Staining = REFERENCE
) -> np.ndarray:
    """`stained_as` for a part of an image whose `own` staining is known; None changes nothing."""
    if own is None:
        return image
    amounts = _amounts(_density(image), np.array([own.haematoxylin, own.eosin]))
    amounts *= np.array(reference.strongest) / np.maximum(own.strongest, 1e-6)
    density = amounts @ np.array([reference.haematoxylin, reference.eosin])
    return np.clip(256 * np.exp(-density) - 1 + 0.5, 0, 255).astype(np.uint8)


def _density(image: np.ndarray) -> np.ndarray:
    return -np.log((image.astype(np.float64) + 1) / 256)


def _amounts(density: np.ndarray, stains: np.ndarray) -> np.ndarray:
    return np.maximum(density @ np.linalg.pinv(stains), 0)
