"""Pixels in: slides of any kind behind one protocol, and the tiles they are read by."""

from cellvit_jax.slides.image import ImageSlide, open_image
from cellvit_jax.slides.slide import Slide
from cellvit_jax.slides.tiles import Tile, plan, read_tile, resample, resample_factor

__all__ = [
    "ImageSlide",
    "Slide",
    "Tile",
    "open_image",
    "plan",
    "read_tile",
    "resample",
    "resample_factor",
]
