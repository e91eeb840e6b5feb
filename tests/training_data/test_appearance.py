import numpy as np
import pytest

from cellvit_jax.data import appearance
from tests.training_data.fields import field

CHANGES = {
    "stain": lambda image, rng: appearance.random_stain(image, 0.3, rng),
    "colour": lambda image, rng: appearance.random_colour(image, 0.6, rng),
    "jitter": lambda image, rng: appearance.random_jitter(image, (0.25, 0.25, 0.1, 0.05), rng),
    "softness": appearance.random_softness,
    "blur": lambda image, rng: appearance.random_blur(image, 10, rng),
    "noise": lambda image, rng: appearance.random_noise(image, 50.0, rng),
    "downscaled": lambda image, rng: appearance.downscaled(image, 0.5, rng),
    "zoom_blur": lambda image, rng: appearance.random_zoom_blur(image, 1.05, rng),
    "superpixels": lambda image, rng: appearance.random_superpixels(image, 100, 0.5, rng),
}


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def picture(height: int = 65, width: int = 96) -> np.ndarray:
    """The made field, lit unevenly and odd in size."""
    light = np.linspace(0.7, 1.0, width)[:, None]
    return (field(height, width).image * light).astype(np.uint8)


@pytest.mark.parametrize("name", CHANGES)
def test_the_shape_stays_and_pixels_change_a_little(name):
    image = picture()
    given = image.copy()
    changed = CHANGES[name](image, rng(4))
    assert (changed.shape, changed.dtype) == (image.shape, np.uint8)
    assert 0 < np.abs(changed.astype(int) - image).mean() < 40
    np.testing.assert_array_equal(image, given)
    np.testing.assert_array_equal(changed, CHANGES[name](image, rng(4)))


@pytest.mark.parametrize(
    "change",
    [
        lambda image: appearance.random_stain(image, 0.0, rng()),
        lambda image: appearance.random_colour(image, 0.0, rng()),
        lambda image: appearance.random_jitter(image, (0.0, 0.0, 0.0, 0.0), rng()),
        lambda image: appearance.random_noise(image, 0.0, rng()),
        lambda image: appearance.downscaled(image, 1.0, rng()),
        lambda image: appearance.random_superpixels(image, 100, 0.0, rng()),
    ],
)
def test_no_strength_is_no_change(change):
    image = picture()
    assert np.abs(change(image).astype(int) - image).max() <= 1


def test_colours_of_full_strength_reach_grey():
    image = field().image
    spread = [np.ptp(appearance.random_colour(image, 1.0, rng(seed)), axis=2) for seed in range(40)]
    assert min(s.mean() for s in spread) < 0.2 * np.ptp(image, axis=2).mean()
    assert max(s.mean() for s in spread) > np.ptp(image, axis=2).mean()


def test_jitter_stays_within_its_amounts():
    image = np.full((8, 8, 3), (120, 100, 110), np.uint8)
    means = [
        appearance.random_jitter(image, (0.25, 0.0, 0.0, 0.0), rng(seed)).mean() / image.mean()
        for seed in range(50)
    ]
    assert 0.74 < min(means) < 0.8
    assert 1.2 < max(means) < 1.26


def test_noise_has_at_most_its_variance():
    grey = np.full((64, 64, 3), 128, np.uint8)
    spread = [appearance.random_noise(grey, 50.0, rng(seed)).var() for seed in range(30)]
    assert 30 < max(spread) < 53


def test_downscaling_repeats_pixels():
    image = rng().integers(0, 256, (16, 16, 3), np.uint8)
    blocks = appearance.downscaled(image, 0.5, rng()).reshape(8, 2, 8, 2, 3)
    assert (blocks == blocks[:, :1, :, :1]).all()


def test_replaced_superpixels_are_flat_and_the_others_untouched():
    image = picture()
    changed = appearance.random_superpixels(image, 50, 0.3, rng(2))
    flat = (changed != image).any(-1)
    assert 0.1 < flat.mean() < 0.4
    assert len(np.unique(changed[flat], axis=0)) < 50
