"""Slides that are read by the rectangle, by OpenSlide or from a TIFF: the same pixels."""

import numpy as np
import pytest
import tifffile

from cellvit_jax.errors import InputError, MissingExtraError
from cellvit_jax.slides import ImageSlide, Resampled, open_slide
from cellvit_jax.slides.levels import exact_downsamples
from cellvit_jax.slides.pyramid_tiff import PyramidTiff
from cellvit_jax.slides.whole_slide import WholeSlide
from tests.inference.free import write_slide
from tests.shared import shared

openslide = pytest.importorskip("openslide")


@pytest.fixture(scope="module")
def pixels():
    rows, cols = np.mgrid[0:300, 0:420]
    return np.stack([rows % 256, cols % 256, (rows * cols) % 256], -1).astype(np.uint8)


@pytest.fixture
def path(tmp_path, pixels):
    return write_slide(tmp_path / "slide.tif", pixels)


def ome(path, pixels, **options):
    tags = {"photometric": "rgb", "tile": (64, 64), "compression": "deflate"} | options
    metadata = {"axes": "YXS", "PhysicalSizeX": 0.25, "PhysicalSizeY": 0.25}
    with tifffile.TiffWriter(path, ome=True) as file:
        file.write(pixels, subifds=1, metadata=metadata, **tags)
        file.write(pixels[::2, ::2].copy(), subfiletype=1, **tags)
    return path


@pytest.mark.parametrize("reader", [WholeSlide, PyramidTiff])
def test_every_rectangle_of_every_level(path, pixels, reader):
    slide = reader(path)
    assert (slide.name, slide.size, slide.downsamples) == ("slide", (300, 420), (1.0, 2.0))
    assert slide.mpp == pytest.approx(0.25)
    assert slide.bounds == (0, 0, 300, 420)
    for r, c, h, w in ((0, 0, 300, 420), (60, 60, 10, 10), (64, 128, 64, 64), (299, 419, 1, 1)):
        np.testing.assert_array_equal(slide.read(r, c, h, w), pixels[r : r + h, c : c + w])
    half = pixels[::2, ::2]
    np.testing.assert_array_equal(slide.read(30, 50, 70, 80, level=1), half[30:100, 50:130])


def test_a_pyramid_is_opened_without_openslide_where_that_can_be(pixels, tmp_path, monkeypatch):
    path = write_slide(tmp_path / "a.tif", pixels, compression="jpeg")
    by_tifffile = open_slide(path)
    monkeypatch.setattr("cellvit_jax.slides.pyramid_tiff.find_spec", lambda name: None)
    by_openslide = open_slide(path)
    assert [type(slide) for slide in (by_tifffile, by_openslide)] == [PyramidTiff, WholeSlide]
    assert by_tifffile.mpp == pytest.approx(by_openslide.mpp)
    theirs = by_openslide.read(0, 0, 300, 420).astype(int)
    assert np.abs(by_tifffile.read(0, 0, 300, 420) - theirs).max() <= 2


def test_an_ome_pyramid_has_all_its_levels(pixels, tmp_path):
    slide = open_slide(ome(tmp_path / "a.ome.tif", pixels))
    assert isinstance(slide, PyramidTiff)
    assert (slide.name, slide.mpp, slide.downsamples) == ("a", 0.25, (1.0, 2.0))
    np.testing.assert_array_equal(slide.read(5, 7, 200, 300), pixels[5:205, 7:307])


def test_a_small_image_in_tiles_is_a_plain_image(pixels, tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", tile=(64, 64))
    assert isinstance(open_slide(tmp_path / "a.tif"), ImageSlide)


def test_the_resolution_given_wins(path):
    assert open_slide(path, mpp=0.5).mpp == 0.5
    with pytest.raises(InputError, match="positive"):
        open_slide(path, mpp=0)


def test_no_resolution_is_none(tmp_path, pixels):
    assert open_slide(write_slide(tmp_path / "a.tif", pixels, mpp=None)).mpp is None


def test_the_smallest_level_that_is_large_enough_is_read(path):
    slide = open_slide(path)
    levels = []
    original = slide.read
    slide.read = lambda r, c, h, w, level=0: levels.append(level) or original(r, c, h, w, level)
    for factor in (0.3, 0.5, 0.6):
        Resampled(slide, factor).read(0, 0, 20, 20)
    assert levels == [1, 1, 0]


@pytest.mark.parametrize("reader", [WholeSlide, PyramidTiff])
def test_a_tile_with_bad_bytes_is_an_error_and_the_others_are_read(tmp_path, pixels, reader):
    path = write_slide(tmp_path / "bad.tif", pixels)
    with tifffile.TiffFile(path) as tiff:
        offset = tiff.pages[0].dataoffsets[8]  # row 64, column 64
    data = bytearray(path.read_bytes())
    data[offset : offset + 40] = bytes(40)
    path.write_bytes(data)
    slide = reader(path)
    for _ in range(2):
        with pytest.raises(InputError, match=r"bad\.tif cannot be decoded"):
            slide.read(70, 70, 10, 10)
        np.testing.assert_array_equal(slide.read(0, 0, 60, 420), pixels[:60])


@pytest.mark.parametrize("reader", [WholeSlide, PyramidTiff])
def test_a_truncated_slide_is_read_as_far_as_it_goes(tmp_path, pixels, reader):
    tags = {"photometric": "rgb", "tile": (64, 64), "compression": "deflate", "metadata": None}
    path = tmp_path / "cut.tif"
    with tifffile.TiffWriter(path) as file:
        file.write(pixels[::2, ::2].copy(), **tags)
        file.write(pixels, **tags)
    with tifffile.TiffFile(path) as tiff:
        end = tiff.pages[0].dataoffsets[-1]
    path.write_bytes(path.read_bytes()[:end])
    with pytest.raises(InputError, match="cut"):
        reader(path).read(0, 0, 150, 210)


def test_what_looks_like_a_slide_and_is_none(tmp_path):
    (tmp_path / "a.svs").write_bytes(b"II*\0" + bytes(100))
    with pytest.raises(InputError, match=r"a\.svs"):
        open_slide(tmp_path / "a.svs")
    with pytest.raises(InputError, match="does not exist"):
        open_slide(tmp_path / "b.svs")
    with pytest.raises(InputError, match="no DICOM"):
        open_slide(tmp_path)


def test_the_extra_is_named(path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "openslide", None)
    assert isinstance(open_slide(path), PyramidTiff)  # which needs nothing more
    with pytest.raises(MissingExtraError, match=r"cellvit-jax\[slides\]"):
        WholeSlide(path)


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([(1000, 2000), (500, 1000), (250, 500)], (1, 2, 4)),
        ([(1001, 2003), (500, 1001), (125, 250)], (1, 2, 8)),
        ([(1001, 2003), (501, 1002), (126, 251)], (1, 2, 8)),
        ([(1000, 2000), (400, 800)], (1, 2.5)),
    ],
)
def test_levels_shrink_by_whole_numbers_where_that_explains_their_sizes(sizes, expected):
    assert exact_downsamples(sizes) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("name", "size", "mpp"),
    [
        ("CMU-1-Small-Region.svs", (2967, 2220), 0.499),
        ("MoNuSAC-A9K0_1.svs", (1153, 1307), 0.19448),
        ("TCGA-V5-A7RE-part1.tiff", (4864, 9600), 0.2485),
    ],
)
def test_real_slides(name, size, mpp):
    slide = open_slide(shared(f"data/wsi/{name}"))
    assert (slide.size, slide.mpp) == (size, pytest.approx(mpp))
    assert 100 < slide.read(500, 500, 400, 400).mean() < 245
