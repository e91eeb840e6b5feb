import numpy as np
import pytest

from cellvit_jax.exports import contact_sheet, legend
from cellvit_jax.exports.contact_sheet import CAPTION, COLUMNS, GAP, PANEL, Panel

RED, GREY = (255, 0, 0), np.full((32, 64, 3), 120, np.uint8)
ENTRIES = [legend.Entry("tumour", RED, 3)]


def test_panels_fill_rows_and_the_legend_stands_beside_them():
    page = contact_sheet.draw([Panel("a", GREY)] * (COLUMNS + 1), ENTRIES)
    grid = COLUMNS * (PANEL + GAP) + GAP
    assert page.shape[0] == 2 * (PANEL + CAPTION + GAP) + GAP
    assert (page[:, grid:] == RED).all(-1).any()
    assert (page[GAP + CAPTION, GAP : grid - GAP : PANEL + GAP] == 120).all()


def test_outlines_and_points_lie_where_they_are_in_the_image():
    square = np.array([[10, 10], [20, 10], [20, 20], [10, 20]])
    panel = Panel("a", GREY, [square], [RED], [np.array([40.0, 8.0])], [(0, 0, 255)])
    page = contact_sheet.draw([panel], [])[GAP + CAPTION :, GAP:]
    scale = PANEL / 64
    for colour, middle in ((RED, (15.5, 15.5)), ((0, 0, 255), (8.5, 40.5))):
        drawn = np.argwhere((page == colour).all(-1))
        centre = (drawn.min(0) + drawn.max(0) + 1) / 2
        np.testing.assert_allclose(centre, np.multiply(middle, scale), atol=1)


@pytest.mark.parametrize("name", ["short", "a name that is longer than any picture is wide " * 3])
def test_captions_stay_above_their_pictures(name):
    page = contact_sheet.draw([Panel(name, GREY), Panel("", GREY)], [])
    band = page[GAP : GAP + CAPTION]
    assert (band[:, GAP : GAP + PANEL] < 128).any()
    assert (band[:, GAP + PANEL : 2 * (GAP + PANEL)] == 255).all()


def test_a_page_without_pictures_is_a_legend(tmp_path):
    contact_sheet.write([], ENTRIES, tmp_path / "page.png")
    assert (tmp_path / "page.png").stat().st_size > 0
