"""Another resolution: every pixel lies where the coordinates say, whatever is read with it."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellvit_jax.errors import InputError
from cellvit_jax.slides import ImageSlide, Resampled, overview, resample_factor

factors = st.floats(0.1, 0.95) | st.floats(1.05, 3)


@dataclasses.dataclass(frozen=True, eq=False)
class Pyramid(ImageSlide):
    """An image with smaller copies of itself, averages of squares of pixels."""

    downsamples = (1.0, 2.0, 8.0)

    def read(self, row, col, height, width, level=0):
        by = int(self.downsamples[level])
        rows, cols = (n // by for n in self.size)
        blocks = self.pixels[: rows * by, : cols * by].reshape(rows, by, cols, by, 3)
        small = blocks.mean((1, 3)).round().astype(np.uint8)
        assert 0 <= row < row + height <= rows
        assert 0 <= col < col + width <= cols
        return small[row : row + height, col : col + width]


def whole(view) -> np.ndarray:
    return view.read(0, 0, *view.size)


@pytest.mark.parametrize(
    ("mpp", "factor"),
    [(0.25, 1), (0.262, 1), (0.238, 1), (0.263, 1.052), (0.237, 0.948), (0.5, 2), (0.125, 0.5)],
)
def test_resolutions_within_5_percent_count_as_equal(mpp, factor):
    assert resample_factor(mpp, 0.25) == pytest.approx(factor)


def test_factor_1_returns_the_very_pixels(picture):
    view = Resampled(ImageSlide("a", picture), 1.0)
    assert np.shares_memory(whole(view), picture)


@pytest.mark.parametrize("kind", [ImageSlide, Pyramid])
@given(factor=factors, n=st.integers(60, 120))
def test_pixel_centres_lie_where_the_coordinates_say(kind, factor, n):
    """On a ramp the value is the place: 2 grey levels a pixel, away from the edges."""
    ramp = np.broadcast_to(2 * np.arange(n)[:, None, None], (n, 16, 3)).astype(np.uint8)
    resampled = whole(Resampled(kind("ramp", np.ascontiguousarray(ramp)), factor))
    assert len(resampled) == round(n * factor)
    place = (np.arange(len(resampled)) + 0.5) / factor - 0.5
    inside = (place > 3 / factor + 3) & (place < n - 4 - 3 / factor)
    off = resampled[inside, 0, 0] - 2 * place[inside]
    # rounded twice in a level, twice here: a grey level is half a pixel
    assert np.abs(off).max(initial=0) <= 1.01
    assert abs(off.sum()) <= 0.5 * len(off) + 1


@pytest.mark.parametrize("kind", [ImageSlide, Pyramid])
@given(factor=factors, data=st.data())
def test_a_rectangle_is_a_part_of_the_whole(kind, factor, data):
    pixels = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
    view = Resampled(kind("noise", pixels), factor)
    row, col = (data.draw(st.integers(0, n - 8)) for n in view.size)
    height, width = (
        data.draw(st.integers(8, n - first)) for n, first in zip(view.size, (row, col), strict=True)
    )
    part = view.read(row, col, height, width)
    expected = whole(view)[row : row + height, col : col + width]
    difference = np.abs(part.astype(int) - expected)
    # where a value lies between two grey levels along one axis; the cubic along the other one has
    # weights beyond 1
    assert difference.max() <= 2
    assert (difference > 1).mean() < 0.001
    assert (difference > 0).mean() < 0.05


def test_shrinking_takes_away_what_is_too_fine_to_be_seen():
    """A chessboard becomes grey, not a coarser chessboard."""
    board = np.indices((64, 64)).sum(0)[..., None] % 2 * np.full(3, 255)
    shrunk = whole(Resampled(ImageSlide("board", board.astype(np.uint8)), 0.4))
    assert np.abs(shrunk[4:-4, 4:-4].astype(int) - 127).max() < 20


@pytest.mark.parametrize("factor", [1e-3, 4e6, float("inf")])
def test_a_resolution_that_leaves_nothing_or_too_much_is_an_error(picture, factor):
    with pytest.raises(InputError, match="check the µm per pixel"):
        Resampled(ImageSlide("a", picture), factor)


def test_an_overview_is_all_of_it(monkeypatch):
    monkeypatch.setattr("cellvit_jax.slides.resampled.STRIP", 2000)
    pixels = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
    slide = ImageSlide("noise", pixels)
    difference = overview(slide, 0.3).astype(int) - whole(Resampled(slide, 0.3))
    assert np.abs(difference).max() <= 1
