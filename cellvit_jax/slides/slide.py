"""What every source of pixels offers."""

from typing import Protocol

import numpy as np
import numpy.typing as npt

Box = tuple[int, int, int, int]  # r0, c0, r1, c1, end exclusive


class Slide(Protocol):
    """An image of any size, with or without smaller copies of itself, that is read by rectangle."""

    @property
    def name(self) -> str:
        """What its results are called: the file's name without its suffix."""

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in level-0 pixels."""

    @property
    def mpp(self) -> float | None:
        """µm per level-0 pixel, None where nothing says so."""

    @property
    def bounds(self) -> Box:
        """The part of level 0 that was scanned; outside of it there is nothing to see."""

    @property
    def downsamples(self) -> tuple[float, ...]:
        """Level-0 pixels per pixel of each level, from 1 upward."""

    def read(
        self, row: int, col: int, height: int, width: int, level: int = 0
    ) -> npt.NDArray[np.uint8]:
        """RGB pixels (height, width, 3) of a rectangle inside a level, in that level's pixels.

        May be called by several threads. Raises InputError for pixels that cannot be decoded.
        """
