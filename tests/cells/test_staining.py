import numpy as np
import pytest

from cellvit_jax.cells import stain
from cellvit_jax.errors import InputError
from cellvit_jax.stains import STAINS

INSTANCES = np.kron(np.arange(6).reshape(2, 3), np.ones((5, 4), int)).astype(np.int32)
IMAGE = np.random.default_rng(0).integers(0, 256, (*INSTANCES.shape, 3), np.uint8)


def test_means_and_deviations_over_the_pixels_of_an_instance():
    density = -np.log10((IMAGE + 1.0) / 256)
    amount = (density @ np.linalg.inv(STAINS.astype(float)))[..., 0]
    found = stain(IMAGE, INSTANCES, 5)
    for i in range(1, 6):
        inside = amount[i == INSTANCES]
        assert found["haematoxylin_mean"][i - 1] == pytest.approx(inside.mean(), rel=1e-5)
        assert found["haematoxylin_sd"][i - 1] == pytest.approx(inside.std(), rel=1e-5)


@pytest.mark.parametrize("amounts", [(0.0, 0.0), (0.5, 0.0), (0.0, 0.5), (0.8, 0.3)])
def test_pure_stains_are_told_apart(amounts):
    density = np.array([*amounts, 0.0]) @ STAINS
    colour = np.rint(256 * 10**-density - 1).astype(np.uint8)
    found = stain(np.broadcast_to(colour, IMAGE.shape).copy(), INSTANCES, 5)
    np.testing.assert_allclose(found["haematoxylin_mean"], amounts[0], atol=0.02)
    np.testing.assert_allclose(found["haematoxylin_sd"], 0, atol=1e-6)


def test_as_scikit_image_separates_stains():
    color = pytest.importorskip("skimage.color")
    # it clips at zero, and its unit is a density of 6: nothing of much eosin, nothing black
    image = IMAGE // 3 + np.array([60, 60, 160], np.uint8)
    theirs = 6 * color.rgb2hed(image)[..., 0]
    assert theirs.min() > 0
    expected = [theirs[i == INSTANCES].mean() for i in range(1, 6)]
    found = stain(image, INSTANCES, 5)["haematoxylin_mean"]
    np.testing.assert_allclose(found, expected, rtol=0.05)


def test_an_absent_instance_is_nan_without_a_warning():
    assert np.isnan(stain(IMAGE, INSTANCES, 7)["haematoxylin_sd"][5:]).all()


@pytest.mark.parametrize("bad", [IMAGE[1:], IMAGE[..., 0], IMAGE / 255])
def test_another_image_is_refused(bad):
    with pytest.raises(InputError, match="same pixels"):
        stain(bad, INSTANCES, 5)
