"""Pixels in: slides of any kind behind one protocol, and the tiles they are read by."""

from cellvit_jax.slides.image import ImageSlide, open_image
from cellvit_jax.slides.open import open_slide
from cellvit_jax.slides.resampled import Resampled, overview, resample_factor
from cellvit_jax.slides.slide import Slide
from cellvit_jax.slides.tiles import Grid, Tile, grid, plan, read_tile

__all__ = [
    "Grid",
    "ImageSlide",
    "Resampled",
    "Slide",
    "Tile",
    "grid",
    "open_image",
    "open_slide",
    "overview",
    "plan",
    "read_tile",
    "resample_factor",
]
