"""Plain images and arrays as slides, held in memory whole."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cellvit_jax.errors import InputError
from cellvit_jax.slides import decode
from cellvit_jax.slides.collection import slide_name
from cellvit_jax.slides.limits import check_size
from cellvit_jax.slides.resolution import check_mpp
from cellvit_jax.slides.slide import Box


@dataclasses.dataclass(frozen=True, eq=False)
class ImageSlide:
    """A slide whose pixels, uint8 (height, width, 3) RGB, are in memory."""

    name: str
    pixels: npt.NDArray[np.uint8]
    mpp: float | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.pixels.shape[0], self.pixels.shape[1]

    @property
    def bounds(self) -> Box:
        """All of it."""
        return 0, 0, *self.size

    @property
    def downsamples(self) -> tuple[float, ...]:
        """There are no smaller copies."""
        return (1.0,)

    def read(
        self, row: int, col: int, height: int, width: int, level: int = 0
    ) -> npt.NDArray[np.uint8]:
        """A view of the pixels (height, width, 3) from `row, col`."""
        return self.pixels[row : row + height, col : col + width]


def open_image(
    source: str | os.PathLike[str] | np.ndarray, *, mpp: float | None = None
) -> ImageSlide:
    """Opens a PNG, JPEG, TIFF or .npy file, or an array uint8 (height, width, 3).

    Grey, palette, CMYK and YCbCr become RGB, transparency is laid over white, EXIF rotation is
    applied. Of a TIFF with several pages the first is read, which is the full level of a pyramid;
    another just as large is an error. More than 8 bits a channel are refused, since nothing says
    how they map to 8. The resolution is `mpp` (µm per pixel) if given, else what the file says, if
    that can be true of a microscope, else None.

    Raises InputError for what cannot be used, MissingExtraError where a TIFF's compression needs
    imagecodecs.
    """
    if mpp is not None:
        mpp = check_mpp(mpp)
    if isinstance(source, np.ndarray):
        return ImageSlide("array", _checked(source, "the array"), mpp)
    path = Path(source)
    pixels, found = decode.read(path)
    return ImageSlide(slide_name(path), _checked(pixels, str(path)), mpp or found)


def _checked(pixels: np.ndarray, what: str) -> npt.NDArray[np.uint8]:
    if pixels.dtype.kind == "f":
        raise InputError(
            f"{what} holds {pixels.dtype} values; give uint8 from 0 to 255 "
            "(values from 0 to 1: multiply by 255, round, and cast)"
        )
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise InputError(
            f"{what} must be uint8 of shape (height, width, 3), "
            f"not {pixels.dtype} of shape {pixels.shape}"
        )
    check_size(pixels.shape[0], pixels.shape[1], what)
    return np.ascontiguousarray(pixels)
