import numpy as np
import pytest

from cellvit_jax.data import augment
from tests.training_data.fields import COLORS, field


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def aligned(sample) -> float:
    """Share of pixels whose colour, type and instance tell the same."""
    by_color = np.abs(sample.image[..., None, :].astype(int) - COLORS).sum(-1).argmin(-1)
    return ((by_color == sample.types) & ((sample.instances > 0) == (sample.types > 0))).mean()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("zoom", [(1.0, 1.0), (0.7, 0.9), (1.2, 2.0)])
def test_a_crop_moves_image_instances_and_types_together(zoom, seed):
    sample = augment.random_crop(field(), 64, zoom, rng(seed))
    assert sample.image.shape == (64, 64, 3)
    assert aligned(sample) > (0.999 if zoom == (1.0, 1.0) else 0.9)


def test_a_crop_of_a_field_smaller_than_the_tile_is_enlarged():
    assert augment.random_crop(field(40, 48), 64, (1.0, 1.0), rng()).instances.shape == (64, 64)


def test_all_eight_symmetries_occur_and_keep_everything_aligned():
    sample = field(64, 64)
    seen = {augment.random_symmetry(sample, rng(seed)).image.tobytes() for seed in range(60)}
    assert len(seen) == 8
    assert all(aligned(augment.random_symmetry(sample, rng(seed))) == 1 for seed in range(8))


def test_untyped_fields_stay_untyped():
    sample = augment.random_symmetry(
        augment.random_crop(field(typed=False), 64, (0.8, 1.2), rng()), rng()
    )
    assert sample.types is None


@pytest.mark.parametrize("change", [augment.random_stain, augment.random_colour])
def test_no_change_of_stain_or_colour_is_no_change(change):
    image = field().image
    difference = change(image, 0.0, rng()).astype(int) - image
    assert np.abs(difference).max() <= 1


def test_colours_of_full_strength_reach_grey():
    image = field().image
    spread = [np.ptp(augment.random_colour(image, 1.0, rng(seed)), axis=2) for seed in range(40)]
    assert min(s.mean() for s in spread) < 0.2 * np.ptp(image, axis=2).mean()
    assert max(s.mean() for s in spread) > np.ptp(image, axis=2).mean()


@pytest.mark.parametrize(
    "change",
    [
        lambda i, r: augment.random_stain(i, 0.3, r),
        lambda i, r: augment.random_colour(i, 0.6, r),
        augment.random_blur,
        augment.random_noise,
    ],
)
def test_colour_changes_keep_the_shape_and_change_pixels(change):
    image = field().image
    changed = change(image, rng(1))
    assert (changed.shape, changed.dtype) == (image.shape, np.uint8)
    assert (changed != image).any()
