"""What every source of pixels offers."""

from typing import Protocol

import numpy as np
import numpy.typing as npt


class Slide(Protocol):
    """An image of any size that is read by the rectangle."""

    @property
    def name(self) -> str:
        """What its results are called: the file's name without its suffix."""

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in level-0 pixels."""

    @property
    def mpp(self) -> float | None:
        """µm per level-0 pixel, None where nothing says so."""

    def read(self, row: int, col: int, height: int, width: int) -> npt.NDArray[np.uint8]:
        """The RGB pixels (height, width, 3) from `row, col`, a rectangle inside the slide."""
