"""One slide as a scanner wrote it, as DICOM and as OME-TIFF: the same cells."""

from pathlib import Path

import numpy as np
import pytest
import tifffile

import cellvit_jax as cj
from cellvit_jax import zoo
from cellvit_jax.slides import open_slide
from cellvit_jax.slides.pyramid_tiff import PyramidTiff
from cellvit_jax.slides.whole_slide import WholeSlide
from tests.shared import DATA, shared

pytest.importorskip("openslide")

DICOM = DATA / "dicom/cmu-1-small"
ROI = 900, 700, 1250, 1150  # r0, c0, r1, c1 of level-0 pixels


def ome(path: Path) -> Path:
    """The DICOM slide as an OME-TIFF pyramid, without loss."""
    slide = open_slide(DICOM)
    pixels = slide.read(0, 0, *slide.size)
    tags = {"photometric": "rgb", "tile": (256, 256), "compression": "deflate"}
    metadata = {
        "axes": "YXS",
        **{f"PhysicalSize{axis}": slide.mpp for axis in "XY"},
        **{f"PhysicalSize{axis}Unit": "µm" for axis in "XY"},
    }
    with tifffile.TiffWriter(path, ome=True) as file:
        file.write(pixels, subifds=1, metadata=metadata, **tags)
        file.write(pixels[::2, ::2].copy(), subfiletype=1, **tags)
    return path


@pytest.fixture(scope="module")
def expected():
    cells = cj.segment(DICOM, cj.load(zoo.DEFAULT), roi=ROI)
    assert len(cells) > 100
    return cells


def test_dicom_and_ome_tiff_have_the_same_cells(expected, tmp_path):
    path = ome(tmp_path / "slide.ome.tif")
    slides = open_slide(DICOM), open_slide(path)
    assert [type(slide) for slide in slides] == [WholeSlide, PyramidTiff]
    assert slides[0].mpp == slides[1].mpp == pytest.approx(0.499)
    assert cj.segment(path, cj.load(zoo.DEFAULT), roi=ROI).table.equals(expected.table)


def test_dicom_has_the_cells_of_the_scanners_own_file(expected):
    path = shared("data/wsi/CMU-1-Small-Region.svs")
    assert cj.segment(path, cj.load(zoo.DEFAULT), roi=ROI).table.equals(expected.table)


def test_a_dicom_file_alone_is_the_slide_too(expected):
    whole, alone = open_slide(DICOM), open_slide(DICOM / "level-0.dcm")
    assert whole.name == "cmu-1-small"
    assert whole.size == alone.size
    np.testing.assert_array_equal(*(s.read(900, 700, 50, 60) for s in (whole, alone)))
