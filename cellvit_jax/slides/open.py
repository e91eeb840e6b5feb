"""Which reader a file, a folder or an array needs."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from cellvit_jax.errors import InputError, MissingExtraError
from cellvit_jax.slides import decode
from cellvit_jax.slides.image import open_image
from cellvit_jax.slides.limits import MAX_PIXELS
from cellvit_jax.slides.pyramid_tiff import PyramidTiff, decodable
from cellvit_jax.slides.resolution import check_mpp
from cellvit_jax.slides.slide import Slide
from cellvit_jax.slides.whole_slide import WholeSlide, vendor

Source = str | os.PathLike[str] | np.ndarray

GENERIC = "generic-tiff"
# what only OpenSlide reads, by ending: their content is not told apart here
SCANNERS = {".svs", ".ndpi", ".mrxs", ".scn", ".vms", ".vmu", ".bif", ".svslide", ".dcm"}


def open_slide(source: Source, *, mpp: float | None = None) -> Slide:
    """Opens a whole slide, a folder of DICOM files, a plain image or an array.

    What the file is follows from its content: a scanner's format, or a TIFF in tiles and several
    levels, is read by the rectangle; any other image is held in memory (see `open_image`). `mpp`
    (µm per pixel) wins over what the file says. Raises InputError for what cannot be used,
    MissingExtraError where a package for it is not installed.
    """
    mpp = None if mpp is None else check_mpp(mpp)
    if isinstance(source, np.ndarray):
        return open_image(source, mpp=mpp)
    path = Path(source)
    if path.is_dir():
        return _open_dicom(path, mpp)
    known = vendor(path) if path.is_file() else None
    if known and known != GENERIC:
        return WholeSlide(path, mpp)
    if path.is_file() and _is_pyramid(path):
        # OpenSlide takes three times as long, and sees one level of OME-TIFF
        return WholeSlide(path, mpp) if known and not decodable(path) else PyramidTiff(path, mpp)
    if known is None and path.suffix.lower() in SCANNERS and path.exists():
        return WholeSlide(path, mpp)
    return open_image(path, mpp=mpp)


def _open_dicom(folder: Path, mpp: float | None) -> Slide:
    """The slide of a folder: OpenSlide finds the other files of the series beside the one."""
    failed: Exception | None = None
    for path in sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith(".")):
        if vendor(path) == "dicom":
            try:
                slide = WholeSlide(path, mpp)
            except InputError as error:  # a label or another file that is no level
                failed = error
                continue
            slide.name = folder.name
            return slide
    if failed:
        raise failed
    try:
        import openslide  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingExtraError("openslide-python", "slides") from error
    raise InputError(f"{folder} holds no DICOM slide")


def _is_pyramid(path: Path) -> bool:
    """Whether a file is a TIFF in tiles that is a pyramid, or too large to be held in memory."""
    page, levels = _first_page(path)
    if page is None or not page.is_tiled:
        return False
    return levels > 1 or page.imagelength * page.imagewidth > MAX_PIXELS


def _first_page(path: Path):
    import tifffile

    with path.open("rb") as file:
        if file.read(4) not in decode.TIFF_SIGNATURES:
            return None, 0
    try:
        with tifffile.TiffFile(path) as tiff:
            return tiff.pages[0], len(tiff.series[0].levels)
    except Exception:  # damaged: the reader of plain images says how
        return None, 0
