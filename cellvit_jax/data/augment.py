"""How training tiles are cut from annotated fields and randomly changed, as plain values."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from cellvit_jax.data import appearance, geometry
from cellvit_jax.data.dataset import Sample
from cellvit_jax.errors import InputError

Change = Callable[[Sample, np.random.Generator], Sample]


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Probabilities of changes, in the order in which they are made, and their strengths.

    Every probability is 0 unless given. The strengths are the published ones, or, where the
    published recipe has no such change, the bundled network's.
    """

    zoom: float = 0.0  # tiles cut at another magnification
    turn: float = 0.0  # by 0 to 3 quarters, so that 1 makes all four alike
    flip_horizontally: float = 0.0
    flip_vertically: float = 0.0
    stain: float = 0.0
    colour: float = 0.0
    downscale: float = 0.0
    blur: float = 0.0
    soften: float = 0.0
    noise: float = 0.0
    jitter: float = 0.0
    superpixels: float = 0.0
    zoom_blur: float = 0.0
    crop: float = 0.0
    elastic: float = 0.0

    zoom_range: tuple[float, float] = (0.75, 1.6)
    stain_strength: float = 0.35
    colour_strength: float = 0.6
    downscale_factor: float = 0.5
    blur_size: int = 10  # pixels
    noise_variance: float = 50.0  # grey levels squared
    jitter_amounts: tuple[float, float, float, float] = (0.25, 0.25, 0.1, 0.05)  # b, c, s, hue
    superpixel_count: int = 200
    superpixel_share: float = 0.1  # that takes its mean colour
    zoom_blur_factor: float = 1.05
    crop_smallest: float = 0.5  # of the tile's side
    elastic_sigma: float = 25.0
    elastic_alpha: float = 0.5
    elastic_affine: float = 15.0  # pixels

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if field.default == 0.0 and not 0 <= getattr(self, field.name) <= 1:
                raise InputError(
                    f"{field.name} of the augmentation is {getattr(self, field.name)}, "
                    "but must be a probability, from 0 to 1"
                )

    @classmethod
    def none(cls) -> Augmentation:
        """Random places, nothing else."""
        return cls()

    @classmethod
    def published(cls) -> Augmentation:
        """CellViT's (Hörst et al. 2024)."""
        return cls(
            turn=0.5,
            flip_horizontally=0.5,
            flip_vertically=0.5,
            downscale=0.15,
            blur=0.2,
            noise=0.25,
            jitter=0.2,
            superpixels=0.1,
            zoom_blur=0.1,
            crop=0.1,
            elastic=0.2,
        )

    @classmethod
    def demo(cls) -> Augmentation:
        """The bundled network's: half of the tiles keep their magnification, half their hues."""
        return cls(
            zoom=0.5, turn=1.0, flip_horizontally=0.5, stain=1.0, colour=0.5, soften=0.2, noise=0.2
        )

    def __call__(self, sample: Sample, tile: int, rng: np.random.Generator) -> Sample:
        """A changed `tile`×`tile` piece of a random place of `sample`."""
        zoom = self.zoom_range if rng.random() < self.zoom else (1.0, 1.0)
        sample = geometry.random_crop(sample, tile, zoom, rng)
        for probability, change in self._changes():
            if rng.random() < probability:
                sample = change(sample, rng)
        return sample

    def _changes(self) -> tuple[tuple[float, Change], ...]:
        warp = (self.elastic_sigma, self.elastic_alpha, self.elastic_affine)
        pieces = (self.superpixel_count, self.superpixel_share)
        return (
            (self.turn, geometry.turn),
            (self.flip_horizontally, geometry.flip_horizontally),
            (self.flip_vertically, geometry.flip_vertically),
            (self.stain, _of_image(appearance.random_stain, self.stain_strength)),
            (self.colour, _of_image(appearance.random_colour, self.colour_strength)),
            (self.downscale, _of_image(appearance.downscaled, self.downscale_factor)),
            (self.blur, _of_image(appearance.random_blur, self.blur_size)),
            (self.soften, _of_image(appearance.random_softness)),
            (self.noise, _of_image(appearance.random_noise, self.noise_variance)),
            (self.jitter, _of_image(appearance.random_jitter, self.jitter_amounts)),
            (self.superpixels, _of_image(appearance.random_superpixels, *pieces)),
            (self.zoom_blur, _of_image(appearance.random_zoom_blur, self.zoom_blur_factor)),
            (self.crop, lambda sample, rng: geometry.sized_crop(sample, self.crop_smallest, rng)),
            (self.elastic, lambda sample, rng: geometry.elastic(sample, *warp, rng)),
        )


def _of_image(change: Callable[..., np.ndarray], *strength: Any) -> Change:
    return lambda sample, rng: dataclasses.replace(
        sample, image=change(sample.image, *strength, rng)
    )
