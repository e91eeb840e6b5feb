"""A slide at another resolution, read by the rectangle as if it had been scanned so."""

from __future__ import annotations

import dataclasses
import math

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from cellvit_jax.errors import InputError
from cellvit_jax.slides.slide import Box, Slide

RESOLUTION_TOLERANCE = 0.05
SUPPORT = 2  # pixels on either side that a cubic kernel looks at, at the coarser resolution
MAX_SIDE = 2**24
STRIP = 2**24  # pixels of the source that are in memory at a time, about


def resample_factor(mpp: float, model_mpp: float) -> float:
    """How much larger an image at `mpp` must become for the model; 1 within 5 % of it."""
    factor = mpp / model_mpp
    return factor if abs(factor - 1) > RESOLUTION_TOLERANCE else 1.0


@dataclasses.dataclass(frozen=True, eq=False)
class Resampled:
    """`slide` enlarged by `factor`, or shrunk by one below 1.

    The centre of pixel x lies at (x + 0.5) / factor - 0.5 in level 0, on both axes: `factor` is
    exact, the far edge rounded. Pixels come from the smallest level that is large enough, by an
    antialiased cubic kernel, and are the same in whatever rectangle they are read. Raises
    InputError for a result of no pixels or of absurdly many.
    """

    slide: Slide
    factor: float

    def __post_init__(self) -> None:
        height, width = (n * self.factor for n in self.slide.size)
        if not 0.5 < min(height, width) <= max(height, width) < MAX_SIDE:
            raise InputError(
                f"at the model's resolution {self.slide.name} would be {width:,.0f} × "
                f"{height:,.0f} pixels: check the µm per pixel it was given"
            )

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        height, width = self.slide.size
        return max(1, round(height * self.factor)), max(1, round(width * self.factor))

    def read(self, row: int, col: int, height: int, width: int) -> npt.NDArray[np.uint8]:
        """The RGB pixels (height, width, 3) from `row, col`, a rectangle inside."""
        if self.factor == 1:
            return self.slide.read(row, col, height, width)
        level, step = self._source()
        # corner-based: pixel x covers x * step .. (x + 1) * step
        edges = np.array([row, col, row + height, col + width]) * step
        margin = math.ceil(SUPPORT * max(step, 1)) + 1
        r0, c0 = (math.floor(edge) - margin for edge in edges[:2])
        r1, c1 = (math.ceil(edge) + margin for edge in edges[2:])
        source = self._framed((r0, c0, r1, c1), level)
        top, left, bottom, right = (edges - [r0, c0, r0, c0]).tolist()
        # One axis after the other: left to itself, Pillow takes the order that is quicker.
        across = (left, 0, right, len(source)), (width, len(source))
        down = (0, top, width, bottom), (width, height)
        image = Image.fromarray(source)
        for box, size in (across, down):
            image = image.resize(size, Image.Resampling.BICUBIC, box=box)
        return np.asarray(image)

    def _source(self) -> tuple[int, float]:
        """The level to read, and how many of its pixels go into one."""
        step = 1 / self.factor
        fine = [i for i, d in enumerate(self.slide.downsamples) if d <= step * 1.001]
        level = max(fine, default=0, key=lambda i: self.slide.downsamples[i])
        return level, step / self.slide.downsamples[level]

    def _framed(self, box: Box, level: int) -> npt.NDArray[np.uint8]:
        """A rectangle of a level; beyond its edge the last pixel is repeated."""
        r0, c0, r1, c1 = box
        height, width = (int(n / self.slide.downsamples[level]) for n in self.slide.size)
        top, left = min(max(r0, 0), height - 1), min(max(c0, 0), width - 1)
        bottom, right = max(min(r1, height), top + 1), max(min(c1, width), left + 1)
        inside = self.slide.read(top, left, bottom - top, right - left, level)
        frame = top - r0, r1 - bottom, left - c0, c1 - right
        return cv2.copyMakeBorder(inside, *frame, cv2.BORDER_REPLICATE)


def overview(slide: Slide, factor: float) -> npt.NDArray[np.uint8]:
    """All of a slide at `factor`, (height, width, 3), read in strips so that memory is bounded."""
    view = Resampled(slide, factor)
    height, width = view.size
    rows = max(1, int(STRIP * factor**2 / width))
    strips = [view.read(r, 0, min(rows, height - r), width) for r in range(0, height, rows)]
    return np.concatenate(strips)
