"""µm per pixel, from what files say about it."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from cellvit_jax.errors import InputError

if TYPE_CHECKING:
    from tifffile import TiffPage

# What a microscope can give; outside are screens and printers (72, 96, 300 dpi: 353, 265, 85 µm).
PLAUSIBLE_MPP = (0.05, 10.0)
DOTS_PER_INCH = {2: 1.0, 3: 2.54}  # by the value of a TIFF's ResolutionUnit
MICRONS = {"µm": 1.0, "μm": 1.0, "nm": 1e-3, "mm": 1e3, "cm": 1e4, "m": 1e6}


def check_mpp(mpp: float) -> float:
    """`mpp` as a float; InputError unless it is positive and finite."""
    if not (math.isfinite(mpp) and mpp > 0):
        raise InputError(f"the resolution must be a positive number of µm per pixel, not {mpp}")
    return float(mpp)


def from_dpi(dpi: tuple[float, float] | None) -> float | None:
    """µm per pixel of dots per inch along x and y; None if they differ or are implausible."""
    x, y = map(float, dpi or (0, 0))
    return _plausible(25400 / x) if x > 0 and math.isclose(x, y, rel_tol=0.01) else None


def from_tiff_tags(page: TiffPage) -> float | None:
    """µm per pixel of a TIFF page's resolution tags; None if absent, unequal or implausible."""
    scale = DOTS_PER_INCH.get(page.resolutionunit, 0.0)
    x, y = page.resolution
    return from_dpi((x * scale, y * scale))


def from_metadata(x: str | None, y: str | None) -> float | None:
    """µm per pixel of what a slide states along x and y; None if absent, unequal or implausible."""
    try:
        along_x, along_y = float(x or 0), float(y or 0)
    except ValueError:
        return None
    return _plausible(along_x) if math.isclose(along_x, along_y, rel_tol=0.01) else None


def from_description(description: str) -> float | None:
    """µm per pixel of a TIFF's description (OME-XML or Aperio's); None if silent or implausible."""
    if aperio := re.search(r"\|\s*MPP\s*=\s*(\d*\.?\d+)", description):
        return _plausible(float(aperio[1]))
    return _from_ome(description) if "<OME" in description else None


def _from_ome(description: str) -> float | None:
    try:
        # as bytes, since the text may declare an encoding of its own
        pixels = ElementTree.fromstring(description.encode()).find(".//{*}Pixels")
        stated = {} if pixels is None else pixels.attrib
        unit = MICRONS[stated.get("PhysicalSizeXUnit", "µm")]
        return _plausible(float(stated["PhysicalSizeX"]) * unit)
    except (ElementTree.ParseError, LookupError, ValueError):
        return None


def _plausible(mpp: float) -> float | None:
    low, high = PLAUSIBLE_MPP
    return mpp if low <= mpp <= high else None
