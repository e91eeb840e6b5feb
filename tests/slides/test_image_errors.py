"""Every input that cannot be used gets one sentence, and nothing else is printed."""

import contextlib
import io
import os
import struct
import zlib

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from cellvit_jax.errors import InputError, MissingExtraError
from cellvit_jax.slides import open_image
from cellvit_jax.slides.limits import MAX_PIXELS


def encode(picture, kind, **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, kind, **options)
    return buffer.getvalue()


def refused(source, **options) -> str:
    """The sentence of the InputError that opening `source` raises."""
    with pytest.raises(InputError) as caught:
        open_image(source, **options)
    sentence = str(caught.value)
    assert sentence
    assert "\n" not in sentence
    return sentence


@pytest.fixture
def bad(tmp_path, capfd):
    """Writes bytes, opens them, and returns the sentence; checks that it names the file."""

    def _bad(data: bytes, name: str = "image.png") -> str:
        (tmp_path / name).write_bytes(data)
        sentence = refused(tmp_path / name)
        assert name in sentence
        assert capfd.readouterr() == ("", "")
        return sentence

    return _bad


def test_missing_file(tmp_path):
    assert "does not exist" in refused(tmp_path / "nowhere.png")


def test_a_name_that_no_file_can_have(tmp_path):
    assert "File name too long" in refused(tmp_path / ("a" * 300 + ".png"))


def test_folder(tmp_path):
    assert "is a folder" in refused(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_file(tmp_path):
    (tmp_path / "a.png").touch(mode=0)
    assert "Permission denied" in refused(tmp_path / "a.png")


def test_empty_file(bad):
    assert "0 bytes" in bad(b"")


@pytest.mark.parametrize("data", [b"not an image\n", b"\x89PN", bytes(100), b"GIF89a" + bytes(50)])
def test_other_formats(bad, data):
    assert "no PNG, JPEG, TIFF or NumPy" in bad(data)


KINDS = {
    "png": {},
    "jpeg": {},
    "tiff": {},
    "tiff-lzw": {"compression": "tiff_lzw"},
    "tiff-jpeg": {"compression": "jpeg"},
    "tiff-deflate": {"compression": "tiff_adobe_deflate"},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.95])
def test_truncated_files(bad, picture, kind, share):
    noise = np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    data = encode(noise, kind.split("-")[0], **KINDS[kind])
    sentence = bad(data[: max(16, int(len(data) * share))])
    assert "damaged or incomplete" in sentence or "is incomplete" in sentence


def test_truncated_tiff_whose_directory_comes_first(bad, tmp_path, picture):
    tifffile.imwrite(tmp_path / "a.tif", picture, photometric="rgb")
    assert "beyond the end" in bad((tmp_path / "a.tif").read_bytes()[:-100], "b.tif")


def test_truncated_npy(bad, tmp_path, picture):
    np.save(tmp_path / "a.npy", picture)
    assert "damaged or incomplete" in bad((tmp_path / "a.npy").read_bytes()[:-1], "b.npy")


@pytest.mark.parametrize("kind", ["png", "jpeg", "tiff"])
@pytest.mark.parametrize("size", [(15, 80), (80, 15), (1, 1)])
def test_too_small(bad, kind, size):
    data = encode(np.zeros((*size, 3), np.uint8), kind)
    assert "at least 16 × 16" in bad(data)


def test_16_by_16_is_enough(tmp_path):
    assert open_image(np.zeros((16, 16, 3), np.uint8)).size == (16, 16)


def png_of_size(width: int, height: int) -> bytes:
    """A PNG whose header is valid and whose pixels are one compressed run of zeros."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1 << 20))
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def tiff_of_size(width: int, height: int) -> bytes:
    """A TIFF that claims one strip of that size and holds 8 bytes."""
    tags = [(256, 4, width), (257, 4, height), (258, 3, 8), (259, 3, 8), (262, 3, 1)]
    tags += [(273, 4, 8), (277, 3, 1), (278, 4, height), (279, 4, 8)]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    directory = struct.pack("<H", len(tags)) + entries + bytes(4)
    return b"II*\0" + struct.pack("<I", 16) + bytes(8) + directory


@pytest.mark.parametrize("make", [png_of_size, tiff_of_size])
def test_a_bomb_is_refused_by_its_header(bad, make):
    sentence = bad(make(40_000, 40_000))
    assert "40,000 × 40,000" in sentence
    assert f"{MAX_PIXELS:,}" in sentence


def test_npy_bomb_is_refused_before_it_is_read(tmp_path):
    array = np.lib.format.open_memmap(tmp_path / "a.npy", "w+", np.uint8, (40_000, 40_000, 3))
    del array  # a sparse file: nothing was written but the header
    assert "40,000 × 40,000" in refused(tmp_path / "a.npy")


@pytest.mark.parametrize("kind", ["png", "tiff"])
def test_16_bits_are_refused(bad, picture, kind):
    grey = picture[..., 0].astype(np.uint16) * 256
    assert "16 bits" in bad(encode(grey, kind))


def test_16_bit_rgb_and_float_tiffs_are_refused(bad, tmp_path, picture):
    for dtype, bits in ((np.uint16, 16), (np.float32, 32)):
        tifffile.imwrite(tmp_path / "a.tif", picture.astype(dtype), photometric="rgb")
        assert f"{bits} bits" in bad((tmp_path / "a.tif").read_bytes(), "b.tif")


def test_16_bit_rgb_png_is_refused(bad, picture):
    cv2 = pytest.importorskip("cv2")
    data = cv2.imencode(".png", picture.astype(np.uint16) * 256)[1].tobytes()
    assert "16 bits" in bad(data)


def test_a_stack_of_pages_is_refused(bad, tmp_path, picture):
    stack = np.stack([picture] * 3)
    tifffile.imwrite(tmp_path / "a.tif", stack, photometric="rgb")
    assert "3 pages of the same size" in bad((tmp_path / "a.tif").read_bytes(), "b.tif")


@pytest.mark.parametrize("channels", [2, 5])
def test_other_numbers_of_channels_are_refused(bad, tmp_path, picture, channels):
    planes = np.stack([picture[..., 0]] * channels)
    tifffile.imwrite(tmp_path / "a.tif", planes, photometric="minisblack", planarconfig="separate")
    sentence = bad((tmp_path / "a.tif").read_bytes(), "b.tif")
    assert f"{channels} channels" in sentence


def test_a_compression_that_needs_an_extra_names_it(tmp_path, picture, monkeypatch):
    pytest.importorskip("imagecodecs")
    tifffile.imwrite(tmp_path / "a.tif", picture, photometric="rgb", compression="jpeg2000")
    monkeypatch.setattr("cellvit_jax.slides.decode.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"imagecodecs.*cellvit-jax\[tiff\]"):
        open_image(tmp_path / "a.tif")


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros((32, 32), np.uint8), "shape"),
        (np.zeros((32, 32, 4), np.uint8), "shape"),
        (np.zeros((2, 32, 32, 3), np.uint8), "shape"),
        (np.zeros((32, 32, 3), np.uint16), "uint16"),
        (np.zeros((32, 32, 3), np.float32), "multiply by 255"),
        (np.zeros((32, 32, 3), bool), "bool"),
        (np.zeros((15, 32, 3), np.uint8), "at least 16 × 16"),
        (np.zeros((), np.uint8), "shape"),
    ],
)
def test_other_arrays(tmp_path, array, reason):
    np.save(tmp_path / "a.npy", array)
    assert reason in refused(array)
    assert reason in refused(tmp_path / "a.npy")


def test_a_pickled_array_is_not_unpickled(tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "sprung"),)

    np.save(tmp_path / "a.npy", np.array([Trap()], dtype=object), allow_pickle=True)
    refused(tmp_path / "a.npy")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("mpp", [0, 0.0, -0.25, float("nan"), float("inf"), -float("inf")])
def test_impossible_resolutions(picture, mpp):
    assert "positive number of µm per pixel" in refused(picture, mpp=mpp)


@pytest.mark.parametrize("kind", KINDS)
@settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_damaged_bytes_are_refused_or_read(tmp_path, picture, kind, data):
    """A damaged file may still be an image; nothing but an InputError may come of it."""
    content = bytearray(encode(picture, kind.split("-")[0], **KINDS[kind]))
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(8, min(len(content), 400) - 1))] = data.draw(
            st.integers(0, 255)
        )
    (tmp_path / "a").write_bytes(content)
    with contextlib.suppress(InputError, MissingExtraError):
        assert open_image(tmp_path / "a").pixels.dtype == np.uint8
