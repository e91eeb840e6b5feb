"""Every kind of image that can be used, and what its pixels become."""

import io

import numpy as np
import pytest
import tifffile
from PIL import Image

from cellvit_jax.slides import open_image
from tests.shared import shared

LOSSY = 6  # grey levels that JPEG at quality 95 may change in a smooth picture


def save(path, picture, mode="RGB", **options):
    Image.fromarray(picture).convert(mode).save(path, **options)
    return path


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.tiff", "a.wrong-suffix.jpg"])
def test_lossless_files_keep_every_pixel(tmp_path, picture, name):
    kind = "png" if name.endswith(("png", "jpg")) else "tiff"
    slide = open_image(save(tmp_path / name, picture, format=kind))
    np.testing.assert_array_equal(slide.pixels, picture)
    assert (slide.size, slide.mpp, slide.name) == ((48, 80), None, (tmp_path / name).stem)


def test_a_string_is_a_path_and_read_returns_a_rectangle(tmp_path, picture):
    slide = open_image(str(save(tmp_path / "a.png", picture)))
    np.testing.assert_array_equal(slide.read(3, 5, 10, 20), picture[3:13, 5:25])


def test_arrays_and_npy_files_are_taken_as_they_are(tmp_path, picture):
    np.save(tmp_path / "b.npy", picture)
    for source in (picture, picture[:, ::-1][:, ::-1], tmp_path / "b.npy"):
        np.testing.assert_array_equal(open_image(source).pixels, picture)
    assert open_image(tmp_path / "b.npy").name == "b"
    assert open_image(picture, mpp=0.5).mpp == 0.5


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("mode", ["L", "1", "P"])
def test_grey_bilevel_and_palette_become_rgb(tmp_path, picture, suffix, mode):
    path = save(tmp_path / f"a.{suffix}", picture, mode)
    expected = np.asarray(Image.fromarray(picture).convert(mode).convert("RGB"))
    np.testing.assert_array_equal(open_image(path).pixels, expected)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_transparency_is_laid_over_white(tmp_path, picture, suffix):
    alpha = np.full((*picture.shape[:2], 1), 255, np.uint8)
    alpha[:, :40] = 0
    Image.fromarray(np.concatenate([picture, alpha], axis=-1)).save(tmp_path / f"a.{suffix}")
    pixels = open_image(tmp_path / f"a.{suffix}").pixels
    assert (pixels[:, :40] == 255).all()
    np.testing.assert_array_equal(pixels[:, 40:], picture[:, 40:])


def test_a_transparent_colour_of_a_palette_is_white(tmp_path):
    indices = Image.fromarray(np.repeat([[0, 1]], 16, axis=0).repeat(8, axis=1).astype(np.uint8))
    indices.putpalette([200, 0, 0, 0, 0, 200])
    indices.save(tmp_path / "a.png", transparency=bytes([0, 255]))
    pixels = open_image(tmp_path / "a.png").pixels
    assert (pixels[:, :8] == 255).all()
    assert (pixels[:, 8:] == [0, 0, 200]).all()


TURNS = {1: 0, 3: 2, 6: -1, 8: 1}  # EXIF orientation → quarter turns to the left


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
def test_exif_rotation_is_applied(tmp_path, picture, suffix, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / f"a.{suffix}", picture, exif=exif)
    pixels = open_image(path).pixels.astype(int)
    assert np.abs(pixels - np.rot90(picture, TURNS[orientation])).max() <= 12


def test_cmyk_jpeg_has_the_colours_that_were_meant(tmp_path, picture):
    path = save(tmp_path / "a.jpg", picture, "CMYK", quality=95)
    assert np.abs(open_image(path).pixels.astype(int) - picture).max() <= LOSSY


def test_ycck_jpeg_has_the_colours_that_were_meant(tmp_path, picture):
    """YCCK is CMYK whose three inks are turned into YCbCr, and Adobe stores the inks inverted."""
    imagecodecs = pytest.importorskip("imagecodecs")
    inks = 255 - np.asarray(Image.fromarray(picture).convert("CMYK"))
    data = imagecodecs.jpeg8_encode(inks, level=95, colorspace="CMYK", outcolorspace="YCCK")
    (tmp_path / "a.jpg").write_bytes(data)
    with Image.open(io.BytesIO(data)) as image:
        assert image.info["adobe_transform"] == 2
    assert np.abs(open_image(tmp_path / "a.jpg").pixels.astype(int) - picture).max() <= 12


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_tiff_compressions_of_pillow(tmp_path, picture, compression):
    path = save(tmp_path / "a.tif", picture, compression=compression)
    np.testing.assert_array_equal(open_image(path).pixels, picture)


@pytest.mark.parametrize("layout", [{"tile": (16, 16)}, {"bigtiff": True}, {"byteorder": ">"}])
def test_tiff_layouts(tmp_path, picture, layout):
    tifffile.imwrite(tmp_path / "a.tif", picture, photometric="rgb", **layout)
    np.testing.assert_array_equal(open_image(tmp_path / "a.tif").pixels, picture)


def test_planar_tiff(tmp_path, picture):
    planes = np.ascontiguousarray(picture.transpose(2, 0, 1))
    tifffile.imwrite(tmp_path / "a.tif", planes, photometric="rgb", planarconfig="separate")
    np.testing.assert_array_equal(open_image(tmp_path / "a.tif").pixels, picture)


@pytest.mark.parametrize("channels", [slice(None), 0], ids=["rgb", "grey"])
def test_lossless_jpeg2000_tiff(tmp_path, picture, channels):
    pytest.importorskip("imagecodecs")
    pixels = picture[..., channels]
    kind = "rgb" if pixels.ndim == 3 else "minisblack"
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric=kind, compression="jpeg2000")
    expected = np.broadcast_to(pixels.reshape(48, 80, -1), picture.shape)
    np.testing.assert_array_equal(open_image(tmp_path / "a.tif").pixels, expected)


def test_of_a_pyramid_the_full_level_is_read(tmp_path, picture):
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        tiff.write(picture, photometric="rgb")
        tiff.write(picture[::2, ::2], photometric="rgb", subfiletype=1)
    np.testing.assert_array_equal(open_image(tmp_path / "a.tif").pixels, picture)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
def test_pillows_own_limit_on_pixels_does_not_count(tmp_path, picture, suffix, monkeypatch):
    path = save(tmp_path / f"a.{suffix}", picture)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert open_image(path).size == (48, 80)


def test_a_real_slide():
    slide = open_image(shared("data/wsi/CMU-1-Small-Region.svs"))
    assert (slide.size, slide.mpp) == ((2967, 2220), 0.499)
    assert slide.pixels.mean() > 150  # mostly background, which is bright
