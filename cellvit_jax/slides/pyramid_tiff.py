"""TIFF pyramids of no scanner's own format: generic ones, and OME-TIFF."""

from __future__ import annotations

import itertools
import os
import weakref
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from cellvit_jax.errors import InputError, MissingExtraError
from cellvit_jax.slides.collection import slide_name
from cellvit_jax.slides.levels import exact_downsamples
from cellvit_jax.slides.resolution import from_description, from_tiff_tags
from cellvit_jax.slides.slide import Box

if TYPE_CHECKING:
    from tifffile import TiffPage

EMPTY = 255  # of tiles that were never written: paper white
PLAIN = {1, 8, 32773, 32946}  # none, deflate, PackBits, deflate: read without imagecodecs


class PyramidTiff:
    """The first series of a TIFF, 8 bits of red, green and blue a pixel. See `Slide`."""

    def __init__(self, path: Path, mpp: float | None = None):
        import tifffile

        self._path = path
        with tifffile.TiffFile(path) as tiff:
            self._levels = [level.pages[0].aspage() for level in tiff.series[0].levels]
            _check(path, self._levels)
            # what decoding needs of the file beside the tiles themselves
            self._decoders = [(page.decode, page.jpegtables) for page in self._levels]
        first = self._levels[0]
        # a descriptor has no position that threads would have to share
        self._descriptor = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._descriptor)
        self.name = slide_name(path)
        self.mpp = mpp or from_description(first.description) or from_tiff_tags(first)
        self.size: tuple[int, int] = (first.imagelength, first.imagewidth)
        self.downsamples = exact_downsamples(
            [(page.imagelength, page.imagewidth) for page in self._levels]
        )

    @property
    def bounds(self) -> Box:
        """All of it: a TIFF does not say what was scanned."""
        return 0, 0, *self.size

    def read(
        self, row: int, col: int, height: int, width: int, level: int = 0
    ) -> npt.NDArray[np.uint8]:
        """See `Slide`; tiles that the file leaves out are white."""
        page = self._levels[level]
        out = np.full((height, width, 3), EMPTY, np.uint8)
        across = -(-page.imagewidth // page.chunks[1])
        rows, cols = (
            range(first // size, -(-(first + n) // size))
            for first, n, size in zip((row, col), (height, width), page.chunks, strict=False)
        )
        for r, c in itertools.product(rows, cols):
            segment = self._segment(level, r * across + c)
            if segment is not None:
                _paste(segment, out, r * page.chunks[0] - row, c * page.chunks[1] - col)
        return out

    def _segment(self, level: int, index: int) -> npt.NDArray[np.uint8] | None:
        page, (decode, tables) = self._levels[level], self._decoders[level]
        size, offset = page.databytecounts[index], page.dataoffsets[index]
        if size == 0:
            return None
        try:
            data = os.pread(self._descriptor, size, offset)
            if len(data) < size:
                raise ValueError("the file ends before")
            pixels, _, shape = decode(data, index, jpegtables=tables)
        except Exception as error:  # whatever a decoder makes of bad bytes
            raise InputError(f"{self._path} cannot be decoded in tile {index} ({error})") from error
        return None if pixels is None else pixels[0, : shape[1], : shape[2]]


def decodable(path: Path) -> bool:
    """Whether what is installed can read such a file."""
    import tifffile

    with tifffile.TiffFile(path) as tiff:
        levels = [level.pages[0].aspage() for level in tiff.series[0].levels]
    try:
        _check(path, levels)
    except (InputError, MissingExtraError):
        return False
    return True


def _check(path: Path, levels: list[TiffPage]) -> None:
    for page in levels:
        if page.dtype != np.uint8 or page.samplesperpixel != 3 or page.planarconfig != 1:
            raise InputError(
                f"{path} is a TIFF pyramid of {page.samplesperpixel} channels of {page.dtype}, "
                f"planar configuration {page.planarconfig}: save it as interleaved 8-bit RGB"
            )
        if page.compression not in PLAIN and find_spec("imagecodecs") is None:
            raise MissingExtraError("imagecodecs", "tiff")


def _paste(segment: npt.NDArray[np.uint8], out: npt.NDArray[np.uint8], row: int, col: int) -> None:
    """Copy `segment` into `out` at (row, col), which may lie outside in part."""
    r0, c0 = max(row, 0), max(col, 0)
    r1, c1 = min(row + segment.shape[0], out.shape[0]), min(col + segment.shape[1], out.shape[1])
    if r0 < r1 and c0 < c1:
        out[r0:r1, c0:c1] = segment[r0 - row : r1 - row, c0 - col : c1 - col]
