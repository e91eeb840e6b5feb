"""Resolution: from the file where it can be true, from the user above all."""

import struct

import numpy as np
import pytest
import tifffile
from PIL import Image

from cellvit_jax.slides import open_image
from cellvit_jax.slides.resolution import from_description

PER_CM = 40_000  # pixels a centimetre at 0.25 µm


def write(path, picture, dpi):
    Image.fromarray(picture).save(path, dpi=(dpi, dpi))
    return path


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_dots_per_inch_become_microns(tmp_path, picture, suffix):
    path = write(tmp_path / f"a.{suffix}", picture, 2.54 * PER_CM)
    assert open_image(path).mpp == pytest.approx(0.25, rel=1e-4)


def test_jpeg_density_in_centimetres(tmp_path, picture):
    """Pillow writes dots per inch only, and those end at 65,535: 0.39 µm."""
    path = write(tmp_path / "a.jpg", picture, 72)
    data = bytearray(path.read_bytes())
    unit = data.index(b"JFIF\0") + 7
    data[unit : unit + 5] = b"\x02" + PER_CM.to_bytes(2, "big") * 2
    path.write_bytes(data)
    assert open_image(path).mpp == pytest.approx(0.25, rel=1e-4)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
@pytest.mark.parametrize("dpi", [72, 96, 300, 1, 2400])
def test_what_screens_and_printers_say_counts_as_absent(tmp_path, picture, suffix, dpi):
    assert open_image(write(tmp_path / f"a.{suffix}", picture, dpi)).mpp is None


def test_implausibly_fine_resolution_counts_as_absent(tmp_path, picture):
    assert open_image(write(tmp_path / "a.png", picture, 25_400 / 0.01)).mpp is None


@pytest.mark.parametrize(
    ("tags", "mpp"),
    [
        ({"resolution": (PER_CM, PER_CM), "resolutionunit": "CENTIMETER"}, 0.25),
        ({"resolution": (PER_CM, PER_CM / 2), "resolutionunit": "CENTIMETER"}, None),
        ({"resolution": (PER_CM, PER_CM), "resolutionunit": "NONE"}, None),
        ({"resolution": ((0, 1), (0, 1)), "resolutionunit": "CENTIMETER"}, None),
    ],
)
def test_tiff_tags(tmp_path, picture, tags, mpp):
    tifffile.imwrite(tmp_path / "a.tif", picture, photometric="rgb", **tags)
    assert open_image(tmp_path / "a.tif").mpp == mpp


def test_a_tiff_tag_that_divides_by_zero(tmp_path, picture):
    path = tmp_path / "a.tif"
    tags = {"resolution": (PER_CM, PER_CM), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(path, picture, photometric="rgb", **tags)
    path.write_bytes(path.read_bytes().replace(struct.pack("<II", PER_CM, 1), bytes(8)))
    assert open_image(path).mpp is None


@pytest.mark.parametrize(("size", "unit", "mpp"), [(0.5, "µm", 0.5), (250, "nm", 0.25)])
def test_ome_metadata_wins_over_the_tags(tmp_path, picture, size, unit, mpp):
    metadata = {"axes": "YXS", "PhysicalSizeX": size, "PhysicalSizeXUnit": unit}
    tags = {"resolution": (PER_CM / 2, PER_CM / 2), "resolutionunit": "CENTIMETER"}
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, picture, photometric="rgb", metadata=metadata, **tags)
    assert open_image(path).mpp == mpp


@pytest.mark.parametrize(
    ("description", "mpp"),
    [
        ('<OME><Image><Pixels PhysicalSizeX="0.3"/></Image></OME>', 0.3),
        ('<OME><Image><Pixels PhysicalSizeX="0.3" PhysicalSizeXUnit="pixel"/></Image></OME>', None),
        ('<OME><Image><Pixels PhysicalSizeX="many"/></Image></OME>', None),
        ("<OME><Image><Pixels/></Image></OME>", None),
        ("<OME><Image/></OME>", None),
        ("<OME><Image>", None),
        ("Aperio Image Library\n46000x32914|AppMag = 20|MPP = 0.4990|Left = 25", 0.499),
        ("Aperio Image Library|MPP = 0|Left = 25", None),
        ("", None),
    ],
)
def test_descriptions(description, mpp):
    assert from_description(description) == mpp


def test_the_argument_wins(tmp_path, picture):
    path = write(tmp_path / "a.png", picture, 2.54 * PER_CM)
    slide = open_image(path, mpp=np.float32(0.5))
    assert slide.mpp == 0.5
    assert type(slide.mpp) is float
