"""Image, instances and types stay one thing, wherever their pixels go."""

import dataclasses

import cv2
import numpy as np
import pytest

from cellvit_jax.data import geometry
from tests.training_data.fields import aligned, field

CHANGES = {
    "turn": geometry.turn,
    "flip_horizontally": geometry.flip_horizontally,
    "flip_vertically": geometry.flip_vertically,
    "plain crop": lambda s, rng: geometry.random_crop(s, 64, (1.0, 1.0), rng),
    "crop from further": lambda s, rng: geometry.random_crop(s, 64, (0.7, 0.9), rng),
    "crop from nearer": lambda s, rng: geometry.random_crop(s, 64, (1.2, 2.0), rng),
    "padded": lambda s, rng: geometry.padded(s, 150),
    "sized_crop": lambda s, rng: geometry.sized_crop(s, 0.5, rng),
    "elastic": lambda s, rng: geometry.elastic(s, 25, 0.5, 15, rng),
    "strongly elastic": lambda s, rng: geometry.elastic(s, 6, 60, 0, rng),
}
EXACT = {"turn", "flip_horizontally", "flip_vertically", "plain crop", "padded"}


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", CHANGES)
def test_image_instances_and_types_move_together(name, seed):
    sample = CHANGES[name](field(96, 96), rng(seed))
    # where colours are interpolated, only pixels on the edge of a nucleus may differ
    assert aligned(sample) >= (1 if name in EXACT else 0.96)
    assert sample.image.shape[:2] == sample.instances.shape == sample.types.shape
    assert (sample.image.dtype, sample.instances.dtype) == (np.uint8, np.int32)


@pytest.mark.parametrize("name", CHANGES)
def test_ids_move_with_the_pixels(name):
    sample = field(96, 96)
    shown = np.repeat(sample.instances[..., None] * 10, 3, axis=2).astype(np.uint8)
    moved = CHANGES[name](dataclasses.replace(sample, image=shown), rng(1))
    for instance in np.unique(moved.instances)[1:]:
        inside = (moved.instances == instance).astype(np.uint8)
        if name not in EXACT:  # edges are interpolated
            inside = cv2.erode(inside, np.ones((3, 3)), borderValue=0)
        values = moved.image[inside > 0, 0]
        assert values.size == 0 or np.mean(values == values[0]) > 0.9


@pytest.mark.parametrize("name", CHANGES)
def test_name_tissue_and_missing_types_are_kept(name):
    sample = CHANGES[name](field(96, 96, typed=False), rng())
    assert (sample.name, sample.tissue, sample.types) == ("made", 3, None)


@pytest.mark.parametrize("name", CHANGES)
def test_the_generator_decides_and_the_sample_given_stays_as_it_was(name):
    sample = field(96, 96)
    first, second = (CHANGES[name](sample, rng(5)) for _ in range(2))
    np.testing.assert_array_equal(first.image, second.image)
    np.testing.assert_array_equal(sample.image, field(96, 96).image)
    np.testing.assert_array_equal(sample.instances, field(96, 96).instances)


def test_ids_of_any_size_survive_a_turn():
    sample = field(64, 64)
    large = dataclasses.replace(sample, instances=sample.instances * 50_000_000)
    assert set(np.unique(geometry.turn(large, rng()).instances)) == set(np.unique(large.instances))


def test_all_eight_symmetries_occur():
    def any_symmetry(seed: int) -> bytes:
        generator = rng(seed)
        turned = geometry.turn(field(64, 64), generator)
        flip = generator.random() < 0.5
        return (geometry.flip_horizontally(turned, generator) if flip else turned).image.tobytes()

    assert len({any_symmetry(seed) for seed in range(60)}) == 8


def test_a_field_smaller_than_the_tile_goes_on_as_its_mirror_image():
    small = field(40, 48)
    sample = geometry.random_crop(small, 64, (1.0, 1.0), rng())
    assert sample.instances.shape == (64, 64)
    np.testing.assert_array_equal(sample.image[:40, :48], small.image)
    np.testing.assert_array_equal(sample.image[40:], sample.image[39:15:-1])


def test_a_nucleus_that_is_cut_in_two_becomes_two():
    sample = field(40, 40)
    instances = np.zeros((40, 40), np.int32)
    instances[5:30, 5:10] = instances[5:30, 20:25] = instances[25:30, 5:25] = 9
    horseshoe = dataclasses.replace(sample, instances=instances)
    assert geometry.window(horseshoe, 0, 0, 20, 40).instances.max() == 2
    assert geometry.window(horseshoe, 0, 0, 40, 30).instances.max() == 1


@pytest.mark.parametrize("sigma", [3.0, 25.0])
def test_elastic_displacements_have_the_spread_of_smoothed_noise(sigma):
    fields = [geometry._smooth_noise((256, 200), sigma, rng(seed)) for seed in range(60)]
    assert fields[0].shape == (256, 200, 2)
    # the standard deviation of uniform noise, by the Gaussian's share of white noise
    expected = 3**-0.5 / (2 * np.pi**0.5 * sigma)
    # away from the borders, whose mirror images add to the noise
    assert np.std(np.array(fields)[:, 64:-64, 64:-64]) == pytest.approx(expected, rel=0.15)


def test_an_affine_change_moves_nuclei_by_pixels():
    sample = field(96, 96)
    moved = geometry.elastic(sample, 25, 0.5, 15, rng(2))
    assert (moved.instances > 0).sum() > 0.4 * (sample.instances > 0).sum()
    assert ((moved.instances > 0) != (sample.instances > 0)).mean() > 0.02
    still = geometry.elastic(sample, 25, 0.5, 0, rng(2))
    np.testing.assert_array_equal(still.instances > 0, sample.instances > 0)
