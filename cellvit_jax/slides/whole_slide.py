"""Whole slides as scanners write them, by OpenSlide: svs, ndpi, mrxs, DICOM, ..."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cellvit_jax.errors import InputError, MissingExtraError
from cellvit_jax.slides.collection import slide_name
from cellvit_jax.slides.levels import exact_downsamples
from cellvit_jax.slides.resolution import from_metadata
from cellvit_jax.slides.slide import Box


class WholeSlide:
    """A slide that OpenSlide reads. See `Slide`."""

    def __init__(self, path: Path, mpp: float | None = None):
        self._openslide = _library()
        self._path = path
        self._changing = threading.Lock()
        self._handle = self._open()
        properties = self._handle.properties
        stated = from_metadata(*(properties.get(f"openslide.mpp-{axis}") for axis in "xy"))
        self.name = slide_name(path)
        self.mpp = mpp or stated
        self.size: tuple[int, int] = self._handle.dimensions[::-1]
        self.downsamples = exact_downsamples([s[::-1] for s in self._handle.level_dimensions])
        self.bounds = _bounds(properties, self.size)
        self._paper = _colour(properties.get("openslide.background-color", "FFFFFF"))

    def read(
        self, row: int, col: int, height: int, width: int, level: int = 0
    ) -> npt.NDArray[np.uint8]:
        """See `Slide`; where nothing was scanned, the slide's background colour."""
        scale = self.downsamples[level]
        request = (round(col * scale), round(row * scale)), level, (width, height)
        failed: Any = None
        for _ in range(2):
            handle = self._handle
            try:
                return self._opaque(handle.read_region(*request))
            except self._openslide.OpenSlideError as error:
                # After an error a handle refuses everything, also what other threads ask of it.
                self._renew(handle)
                failed = error
        raise InputError(f"{self._path} cannot be decoded at x {col}, y {row} ({failed})")

    def _opaque(self, image: Any) -> npt.NDArray[np.uint8]:
        if image.getchannel("A").getextrema() == (255, 255):
            return np.asarray(image)[..., :3]
        from PIL import Image

        return np.asarray(Image.alpha_composite(Image.new("RGBA", image.size, self._paper), image))[
            ..., :3
        ]

    def _renew(self, broken: Any) -> None:
        with self._changing:
            if self._handle is broken:
                self._handle = self._open()

    def _open(self) -> Any:
        try:
            return self._openslide.OpenSlide(self._path)
        except (self._openslide.OpenSlideError, OSError) as error:
            raise InputError(f"{self._path} is damaged or incomplete ({error})") from error


def vendor(path: Path) -> str | None:
    """Which format OpenSlide takes a file for, None where it knows none or is not installed."""
    try:
        return _library().OpenSlide.detect_format(path)
    except MissingExtraError:
        return None


def _library() -> Any:
    try:
        import openslide
    except ModuleNotFoundError as error:
        raise MissingExtraError("openslide-python", "slides") from error
    return openslide


def _bounds(properties: Any, size: tuple[int, int]) -> Box:
    names = ("y", "x", "height", "width")
    try:
        row, col, height, width = (int(properties[f"openslide.bounds-{name}"]) for name in names)
    except (KeyError, ValueError):
        return 0, 0, *size
    return max(row, 0), max(col, 0), min(row + height, size[0]), min(col + width, size[1])


def _colour(code: str) -> tuple[int, int, int, int]:
    red, green, blue = bytes.fromhex(code)
    return red, green, blue, 255
