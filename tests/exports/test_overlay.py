import numpy as np
import pytest
from PIL import Image

from cellvit_jax.cells.table import Cells
from cellvit_jax.errors import InputError
from cellvit_jax.exports import overlay
from tests.exports.samples import CLASSES, VARIANTS, in_blocks, sample

GREY = np.full((256, 512, 3), 200, np.uint8)


def pixels_of(picture, colour):
    return np.argwhere((picture == colour).all(axis=-1))


@pytest.mark.parametrize("variant", VARIANTS)
def test_image_and_legend_stand_side_by_side(variant):
    picture = overlay.draw(VARIANTS[variant], GREY)
    assert picture.dtype == np.uint8
    assert picture.shape[0] == 512
    assert picture.shape[1] > 1024 + 100
    assert (picture[-1, -1] == 255).all()


def test_outlines_have_the_colour_and_the_place_of_their_cells():
    picture = overlay.draw(sample(2), GREY)[:, :1024]
    for row, colour in enumerate(colour for _, colour in CLASSES.values()):
        drawn = pixels_of(picture, colour)
        contour = np.array(sample(2).table["contour"][row].as_py())
        # pixel x covers pixels 2x and 2x + 1 of the enlarged image; the line is two pixels wide
        np.testing.assert_allclose(drawn.min(axis=0), 2 * contour.min(axis=0)[::-1] + 0.5, atol=1.5)
        np.testing.assert_allclose(drawn.max(axis=0), 2 * contour.max(axis=0)[::-1] + 0.5, atol=1.5)


def test_the_legend_shows_every_class_and_says_how_many():
    few, many = (overlay.draw(sample(n), GREY)[:, 1024:] for n in (2, 100))
    for _, colour in CLASSES.values():
        assert len(pixels_of(few, colour)) > 100
    assert few.shape != many.shape or (few != many).any()


@pytest.mark.parametrize(
    ("size", "drawn"),
    [((16, 16), (1024, 1024)), ((16, 1500), (16, 1500)), ((20, 8192), (10, 4096))],
)
def test_small_images_are_enlarged_and_large_ones_reduced(size, drawn):
    picture = overlay.draw(sample(0), np.zeros((*size, 3), np.uint8))
    assert (picture[: drawn[0], : drawn[1]] == 0).all()
    assert (picture[: drawn[0], drawn[1]] == 255).all()
    assert (picture[drawn[0] :, : drawn[1]] == 255).all()


def test_on_a_thumbnail_cells_are_drawn_smaller():
    whole, quarter = (overlay.draw(sample(), GREY[::s, ::s], scale=1 / s) for s in (1, 4))
    drawn = [np.argwhere((p[:, :1024] != 200).any(-1)) for p in (whole, quarter)]
    # both are enlarged to the same size
    np.testing.assert_allclose(drawn[0].max(0), drawn[1].max(0), atol=2)


def test_cells_may_come_block_by_block():
    np.testing.assert_array_equal(
        overlay.draw(in_blocks(sample(), 5), GREY), overlay.draw(sample(), GREY)
    )


def test_the_image_handed_in_stays_as_it_was():
    image = np.full((1024, 1024, 3), 200, np.uint8)
    overlay.draw(sample(), image)
    assert (image == 200).all()


def test_the_file_is_the_picture(tmp_path):
    overlay.write(sample(), GREY, tmp_path / "overlay.png")
    again = np.asarray(Image.open(tmp_path / "overlay.png"))
    np.testing.assert_array_equal(again, overlay.draw(sample(), GREY))


@pytest.mark.parametrize("bad", [GREY[..., 0], GREY / 255, GREY[..., :2]])
def test_what_is_no_rgb_image_is_refused(bad):
    with pytest.raises(InputError, match="RGB"):
        overlay.draw(sample(), bad)


def test_cells_without_their_optional_columns_are_enough():
    cells = sample()
    few = Cells(cells.table.select(["type", "contour"]), cells.classes)
    np.testing.assert_array_equal(overlay.draw(few, GREY), overlay.draw(cells, GREY))
