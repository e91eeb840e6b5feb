"""Tiles: their cores partition the image, their margins hold, their padding is a reflection."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellvit_jax.errors import InputError
from cellvit_jax.slides import ImageSlide, plan, read_tile

sides = st.integers(16, 160)
layouts = st.integers(8, 128).flatmap(
    lambda tile: st.tuples(st.just(tile), st.integers(0, (tile - 4) // 2))
)


@given(size=st.tuples(sides, sides), layout=layouts)
def test_cores_partition_the_image(size, layout):
    owners = np.zeros(size, int)
    for tile in plan(size, *layout):
        (r0, c0), (r1, c1) = tile.core
        assert r0 < r1
        assert c0 < c1
        owners[r0:r1, c0:c1] += 1
    assert (owners == 1).all()


@given(size=st.tuples(sides, sides), layout=layouts)
def test_cores_keep_their_margin_except_at_the_images_edge(size, layout):
    side, margin = layout
    for tile in plan(size, side, margin):
        for origin, first, end, n in zip((tile.row, tile.col), *tile.core, size, strict=True):
            assert first == 0 or first - origin >= margin
            assert end == n or origin + side - end >= margin
            assert origin <= first < end <= origin + side


@given(size=st.tuples(sides, sides), layout=layouts)
def test_no_tile_reaches_beyond_an_image_that_is_as_large(size, layout):
    side, margin = layout
    for tile in plan(size, side, margin):
        for origin, n in zip((tile.row, tile.col), size, strict=True):
            assert n <= side or 0 <= origin <= n - side


@given(n=sides, layout=layouts)
def test_no_fewer_tiles_would_do(n, layout):
    side, margin = layout
    count = len(plan((16, n), side, margin)) // len(plan((16, 16), side, margin))
    assert count == 1 or (count - 1) * (side - 2 * margin) + 2 * margin < n


def test_an_image_of_a_tiles_size_is_one_tile():
    (tile,) = plan((256, 256), 256, 32)
    assert (tile.row, tile.col, tile.core) == (0, 0, ((0, 0), (256, 256)))


@pytest.mark.parametrize("margin", [-1, 32, 40])
def test_a_margin_must_leave_a_core(margin):
    with pytest.raises(InputError, match="leaves nothing"):
        plan((100, 100), 64, margin)


@given(size=st.tuples(sides, sides), layout=layouts)
def test_tiles_are_windows_of_the_reflected_image(size, layout):
    side, margin = layout
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    slide = ImageSlide("noise", pixels)
    padded = np.pad(pixels, ((side, side), (side, side), (0, 0)), mode="reflect")
    for tile in plan(size, side, margin):
        row, col = tile.row + side, tile.col + side
        found = read_tile(slide, tile)
        np.testing.assert_array_equal(found, padded[row : row + side, col : col + side])
