import numpy as np
import pytest
import tifffile

from cellvit_jax.errors import InputError
from cellvit_jax.exports import labels

INSTANCES = np.kron(np.arange(12).reshape(3, 4) * 7000, np.ones((20, 30), int))


def test_the_map_comes_back_as_uint32(tmp_path):
    labels.write(INSTANCES, tmp_path / "instances.tif")
    again = tifffile.imread(tmp_path / "instances.tif")
    assert again.dtype == np.uint32
    np.testing.assert_array_equal(again, INSTANCES)
    assert (tmp_path / "instances.tif").stat().st_size < INSTANCES.size


def test_the_resolution_is_in_the_tags(tmp_path):
    labels.write(INSTANCES, tmp_path / "instances.tif", mpp=0.2485)
    with tifffile.TiffFile(tmp_path / "instances.tif") as file:
        tags = file.pages.first.tags
    numerator, denominator = tags["XResolution"].value
    assert 10_000 * denominator / numerator == pytest.approx(0.2485, rel=1e-6)
    assert tags["ResolutionUnit"].value.name == "CENTIMETER"


@pytest.mark.parametrize("bad", [INSTANCES[None], INSTANCES.astype(float), -INSTANCES])
def test_what_is_no_label_map_is_refused(bad, tmp_path):
    with pytest.raises(InputError):
        labels.write(bad, tmp_path / "instances.tif")
    assert not list(tmp_path.iterdir())
