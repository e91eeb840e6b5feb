"""An image inside the square that a SAM sees: its pixels there, points there, and masks back."""

from __future__ import annotations

import dataclasses
from functools import cached_property

import cv2
import numpy as np
from PIL import Image

from cellvit_jax.models import SamConfig
from cellvit_jax.models.sam_vit import linear_weights

LOGIT = 8.0  # of the pixels inside a mask that somebody drew; outside it is the opposite
ALL = slice(None)


@dataclasses.dataclass(frozen=True)
class Frame:
    """An image of `height` × `width` pixels, `rows` × `columns` in a square of `side` pixels.

    It lies at the top left; SAM's decoder answers in a square of `side` / 4.
    """

    height: int
    width: int
    rows: int
    columns: int
    side: int
    nearest: bool

    @classmethod
    def of(cls, height: int, width: int, config: SamConfig) -> Frame:
        """SAM-Med2D stretches images to the square, SAM fits their longer side."""
        side = config.image_size
        if config.stretches:
            return cls(height, width, side, side, side, nearest=True)
        scale = side / max(height, width)
        rows, columns = (max(1, int(n * scale + 0.5)) for n in (height, width))
        return cls(height, width, rows, columns, side, nearest=False)

    def pixels(self, image: np.ndarray) -> np.ndarray:
        """The square (side, side, 3) uint8 of an image, zeros beyond it; as the originals resize.

        SAM averages when it shrinks, SAM-Med2D takes the nearest pixel.
        """
        size = self.columns, self.rows
        if self.nearest:
            seen = cv2.resize(image, size, interpolation=cv2.INTER_NEAREST)
        else:
            seen = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))
        square = np.zeros((self.side, self.side, 3), np.uint8)
        square[: self.rows, : self.columns] = seen
        return square

    def points(self, points: np.ndarray) -> np.ndarray:
        """Points (…,2), x then y, of the image in the square."""
        return points * np.array([self.columns / self.width, self.rows / self.height])

    def logits(self, mask: np.ndarray) -> np.ndarray:
        """A mask (H,W) of the image as the decoder takes it, (side/4, side/4)."""
        rows, columns = (max(1, round(n / 4)) for n in (self.rows, self.columns))
        small = cv2.resize(np.float32(mask), (columns, rows), interpolation=cv2.INTER_AREA)
        square = np.full((self.side // 4, self.side // 4), -LOGIT, np.float32)
        square[:rows, :columns] = LOGIT * (2 * small - 1)
        return square

    def enlarged(self, logits: np.ndarray, rows: slice = ALL, columns: slice = ALL) -> np.ndarray:
        """The decoder's logits (…,side/4,side/4) at the image's pixels, or at a part of these.

        Bilinear, first to the square and then to the image.
        """
        return self._down[rows] @ logits @ self._across[columns].T

    @cached_property
    def _down(self) -> np.ndarray:
        return self._weights(self.rows, self.height)

    @cached_property
    def _across(self) -> np.ndarray:
        return self._weights(self.columns, self.width)

    def _weights(self, seen: int, size: int) -> np.ndarray:
        to_square = linear_weights(self.side // 4, self.side)[:seen]
        return linear_weights(seen, size) @ to_square
