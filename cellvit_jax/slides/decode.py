"""Image files → RGB pixels and µm per pixel. What is too large is refused before it is decoded."""

from __future__ import annotations

import contextlib
import logging
import threading
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from cellvit_jax.errors import InputError, MissingExtraError
from cellvit_jax.slides.limits import check_size
from cellvit_jax.slides.resolution import from_description, from_dpi, from_tiff_tags

if TYPE_CHECKING:
    from tifffile import TiffPage

Decoded = tuple[np.ndarray, float | None]

# uncompressed, CCITT, LZW, JPEG, deflate, PackBits, LZMA, Zstandard
PILLOW_COMPRESSIONS = {1, 2, 3, 4, 5, 6, 7, 8, 32773, 32946, 34925, 50000}

DECODING = threading.Lock()  # held while settings that belong to the whole process are changed

# what these two log about a bad file, the InputError says
for library in ("PIL", "tifffile"):
    logging.getLogger(library).addHandler(logging.NullHandler())


def read(path: Path) -> Decoded:
    """The pixels of an image file, uint8 RGB, and µm per pixel or None.

    A .npy file is mapped into memory unread: whether it holds pixels is for the caller to see.
    Raises InputError for what is no image, damaged, or outside of the limits, MissingExtraError
    for a TIFF that needs imagecodecs.
    """
    header = _header(path)
    reader = next((r for signature, r in READERS.items() if header.startswith(signature)), None)
    if reader is None:
        raise InputError(f"{path} holds no PNG, JPEG, TIFF or NumPy (.npy) data")
    try:
        with _own_limits():
            return reader(path)
    except (InputError, MissingExtraError, MemoryError):
        raise
    except Exception as error:  # whatever a decoder makes of bad bytes
        raise InputError(f"{path} is damaged or incomplete ({error})") from error


def _header(path: Path) -> bytes:
    try:
        if path.exists() and not path.is_file():
            raise InputError(f"{path} is a folder or a device, not an image file")
        with path.open("rb") as file:
            header = file.read(16)
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    if not header:
        raise InputError(f"{path} is empty (0 bytes)")
    return header


@contextlib.contextmanager
def _own_limits() -> Iterator[None]:
    """Decoders neither warn nor apply Pillow's limit on pixels, which is lower than ours."""
    with DECODING, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _read_png(path: Path) -> Decoded:
    with Image.open(path, formats=["PNG"]) as image, path.open("rb") as file:
        _check_depth(path, file.read(25)[-1])
        return _read_plain(path, image)


def _read_jpeg(path: Path) -> Decoded:
    with Image.open(path, formats=["JPEG"]) as image:
        return _read_plain(path, image)


def _read_plain(path: Path, image: Image.Image) -> Decoded:
    check_size(image.height, image.width, str(path))
    return _rgb(image), from_dpi(image.info.get("dpi"))


def _read_tiff(path: Path) -> Decoded:
    import tifffile

    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        _check_tiff(path, page)
        _check_single(path, [page.shape for page in tiff.pages])
        mpp = from_description(page.description) or from_tiff_tags(page)
        pillow = page.compression in PILLOW_COMPRESSIONS
        return (_tiff_by_pillow if pillow else _tiff_by_imagecodecs)(path, page), mpp


def _check_single(path: Path, shapes: list[tuple[int, ...]]) -> None:
    """Pages of other sizes are levels of a pyramid or overviews; those like the first a stack."""
    if (alike := shapes.count(shapes[0])) > 1:
        raise InputError(
            f"{path} holds {alike} pages of the same size: save the one to look at by itself"
        )


def _check_tiff(path: Path, page: TiffPage) -> None:
    check_size(page.imagelength, page.imagewidth, str(path))
    _check_depth(path, page.bitspersample)
    end = max(map(sum, zip(page.dataoffsets, page.databytecounts, strict=True)))
    if end > path.stat().st_size:
        raise InputError(f"{path} is incomplete: its pixels reach beyond the end of the file")


def _tiff_by_pillow(path: Path, page: TiffPage) -> np.ndarray:
    try:
        with Image.open(path, formats=["TIFF"]) as image:
            return _rgb(image)
    except UnidentifiedImageError as error:
        raise _unsupported(path, page) from error


def _tiff_by_imagecodecs(path: Path, page: TiffPage) -> np.ndarray:
    if page.photometric.name not in ("RGB", "MINISBLACK") or page.planarconfig != 1:
        raise _unsupported(path, page)
    if find_spec("imagecodecs") is None:
        raise MissingExtraError("imagecodecs", "tiff")
    return _rgb(Image.fromarray(page.asarray()))


def _unsupported(path: Path, page: TiffPage) -> InputError:
    return InputError(
        f"{path} is a TIFF of a kind that is not supported ({page.samplesperpixel} channels, "
        f"{page.photometric.name}, {page.compression.name}): save it as 8-bit RGB"
    )


def _read_npy(path: Path) -> Decoded:
    return np.load(path, mmap_mode="r", allow_pickle=False), None


def _check_depth(path: Path, bits: int) -> None:
    if bits > 8:
        raise InputError(
            f"{path} stores {bits} bits a channel, and nothing says how they map to 8: "
            "save it as 8-bit RGB"
        )


def _rgb(image: Image.Image) -> np.ndarray:
    """Upright, opaque pixels, uint8 (height, width, 3)."""
    ImageOps.exif_transpose(image, in_place=True)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


TIFF_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
READERS = {
    b"\x89PNG\r\n\x1a\n": _read_png,
    b"\xff\xd8\xff": _read_jpeg,
    b"\x93NUMPY": _read_npy,
    **dict.fromkeys(TIFF_SIGNATURES, _read_tiff),
}
