import cv2
import numpy as np
import pytest

from cellvit_jax.data import read_folder
from cellvit_jax.errors import InputError


@pytest.fixture
def folder(tmp_path):
    """One field of 32×40 with two nuclei of types 5 and 2."""
    for name in ("images", "masks", "types"):
        (tmp_path / name).mkdir()
    image = np.full((32, 40, 3), (10, 20, 200), np.uint8)  # BGR
    mask = np.zeros((32, 40), np.uint16)
    mask[2:8, 2:8], mask[10:20, 10:20] = 1, 300
    types = np.where(mask == 1, 5, np.where(mask == 300, 2, 0)).astype(np.uint8)
    for name, array in (("images", image), ("masks", mask), ("types", types)):
        cv2.imwrite(str(tmp_path / name / "a.png"), array)
    return tmp_path


def test_a_field_is_read_as_rgb_with_ids_and_merged_types(folder):
    (sample,) = read_folder(folder, merge={5: 1})
    assert sample.name == "a"
    assert sample.image[0, 0].tolist() == [200, 20, 10]
    assert sample.instances.dtype == np.int32
    assert sample.instances[12, 12] == 300
    assert (sample.types[3, 3], sample.types[12, 12]) == (1, 2)


def test_types_are_optional(folder):
    (folder / "types" / "a.png").unlink()
    (folder / "types").rmdir()
    assert read_folder(folder)[0].types is None


def test_an_empty_folder_says_what_was_expected(tmp_path):
    with pytest.raises(InputError, match="images/, masks/"):
        read_folder(tmp_path)


def test_a_missing_mask_is_named(folder):
    (folder / "masks" / "a.png").unlink()
    with pytest.raises(InputError, match=r"masks/a\.png"):
        read_folder(folder)


def test_a_mask_of_another_size_is_refused(folder):
    cv2.imwrite(str(folder / "masks" / "a.png"), np.zeros((10, 10), np.uint16))
    with pytest.raises(InputError, match=r"\(10, 10\)"):
        read_folder(folder)
