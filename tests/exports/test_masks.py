import numpy as np
import pytest
from PIL import Image

from cellvit_jax.errors import OutputError
from cellvit_jax.exports import masks

IMAGE = np.full((60, 80, 3), 100, np.uint8)
MASK = np.zeros((60, 80), bool)
MASK[10:30, 20:50] = True
NONE = {"points": np.zeros((0, 2)), "labels": np.zeros(0), "boxes": np.zeros((0, 4))}


def test_a_mask_is_black_and_white(tmp_path):
    masks.write(MASK, tmp_path / "mask.png")
    found = np.asarray(Image.open(tmp_path / "mask.png"))
    np.testing.assert_array_equal(found, MASK * np.uint8(255))


def test_masks_are_tinted_and_the_rest_is_as_it_was():
    picture = masks.draw(IMAGE, [MASK], **NONE)
    scale = picture.shape[0] // 60
    assert picture.shape == (60 * scale, 80 * scale, 3)
    assert scale > 1
    assert (picture[20 * scale, 35 * scale] != 100).any()
    assert (picture[50 * scale :] == 100).all()


def test_prompts_lie_where_they_were_given():
    prompts = {
        "points": np.array([[5.0, 7.0], [70.0, 50.0]]),
        "labels": np.array([1, 0]),
        "boxes": np.array([[30.0, 35.0, 60.0, 55.0]]),
    }
    picture = masks.draw(IMAGE, [], **prompts)
    scale = picture.shape[0] / 60
    colors = {(5, 7): masks.ON, (70, 50): masks.BESIDE, (45, 35): masks.BOX}
    for (x, y), color in colors.items():
        assert (
            tuple(picture[round((y + 0.5) * scale - 0.5), round((x + 0.5) * scale - 0.5)]) == color
        )


def test_a_picture_that_cannot_be_written(tmp_path):
    with pytest.raises(OutputError, match="cannot be written"):
        masks.write_picture(IMAGE, [MASK], tmp_path / "no" / "x.png", **NONE)
