import dataclasses
import json

import numpy as np
import pytest

from cellvit_jax.data.augment import Augmentation
from cellvit_jax.errors import InputError
from tests.training_data.fields import aligned, field

PROBABILITIES = [f.name for f in dataclasses.fields(Augmentation) if f.default == 0.0]
UNPUBLISHED = {"zoom_range", "stain_strength", "colour_strength"}  # the bundled network's
MOVING = {"zoom", "turn", "flip_horizontally", "flip_vertically", "crop", "elastic"}


def augmented(augmentation: Augmentation, seed: int = 0, tile: int = 64, typed: bool = True):
    return augmentation(field(typed=typed), tile, np.random.default_rng(seed))


def always(*names: str, **strengths) -> Augmentation:
    return Augmentation(**dict.fromkeys(names, 1.0), **strengths)


@pytest.mark.parametrize("name", PROBABILITIES)
def test_every_change_is_made_with_its_own_probability(name):
    plain = [augmented(Augmentation.none(), seed).image for seed in range(12)]
    changed = [augmented(always(name), seed).image for seed in range(12)]
    # a turn may be by nothing, a crop may take all
    assert np.mean([(a != b).any() for a, b in zip(plain, changed, strict=True)]) > 0.4


@pytest.mark.parametrize("name", sorted(set(PROBABILITIES) - MOVING))
def test_changes_of_the_image_touch_no_label(name):
    plain, changed = augmented(Augmentation.none()), augmented(always(name))
    np.testing.assert_array_equal(changed.instances, plain.instances)
    np.testing.assert_array_equal(changed.types, plain.types)


@pytest.mark.parametrize("seed", range(6))
def test_all_moves_at_once_keep_image_and_labels_together(seed):
    sample = augmented(always(*MOVING), seed)
    assert aligned(sample) > 0.9
    assert sample.image.shape == (64, 64, 3)


@pytest.mark.parametrize("preset", ["none", "demo", "published"])
def test_presets_are_plain_values_and_make_tiles(preset):
    augmentation = getattr(Augmentation, preset)()
    text = json.dumps(dataclasses.asdict(augmentation))
    again = Augmentation(**json.loads(text))
    assert json.dumps(dataclasses.asdict(again)) == text
    np.testing.assert_array_equal(augmented(again, 3).image, augmented(augmentation, 3).image)
    for seed in range(8):
        sample = augmented(augmentation, seed, typed=seed % 2 == 0)
        assert (sample.image.shape, sample.tissue) == ((64, 64, 3), 3)
        assert (sample.types is None) == (seed % 2 == 1)


def test_without_changes_tiles_are_windows_of_the_field():
    sample = augmented(Augmentation.none())
    windows = np.lib.stride_tricks.sliding_window_view(field().image, (64, 64, 3))
    assert (windows == sample.image).all((-3, -2, -1)).any()


def test_the_published_probabilities():
    published = Augmentation.published()
    given = {name: getattr(published, name) for name in PROBABILITIES if getattr(published, name)}
    assert given == {
        "turn": 0.5,
        "flip_horizontally": 0.5,
        "flip_vertically": 0.5,
        "downscale": 0.15,
        "blur": 0.2,
        "noise": 0.25,
        "jitter": 0.2,
        "superpixels": 0.1,
        "zoom_blur": 0.1,
        "crop": 0.1,
        "elastic": 0.2,
    }


def test_the_published_strengths():
    published = dataclasses.asdict(Augmentation.published())
    given = {n: published[n] for n in published if n not in {*PROBABILITIES, *UNPUBLISHED}}
    assert given == {
        "downscale_factor": 0.5,
        "blur_size": 10,
        "noise_variance": 50,
        "jitter_amounts": (0.25, 0.25, 0.1, 0.05),
        "superpixel_count": 200,
        "superpixel_share": 0.1,
        "zoom_blur_factor": 1.05,
        "crop_smallest": 0.5,
        "elastic_sigma": 25,
        "elastic_alpha": 0.5,
        "elastic_affine": 15,
    }


@pytest.mark.parametrize(
    ("change", "strength", "other"),
    [
        ("zoom", "zoom_range", (0.5, 0.6)),
        ("stain", "stain_strength", 0.1),
        ("colour", "colour_strength", 0.1),
        ("downscale", "downscale_factor", 0.25),
        ("blur", "blur_size", 40),
        ("noise", "noise_variance", 500),
        ("jitter", "jitter_amounts", (0.0, 0.25, 0.1, 0.05)),
        ("jitter", "jitter_amounts", (0.25, 0.0, 0.1, 0.05)),
        ("jitter", "jitter_amounts", (0.25, 0.25, 0.0, 0.05)),
        ("jitter", "jitter_amounts", (0.25, 0.25, 0.1, 0.0)),
        ("superpixels", "superpixel_count", 20),
        ("superpixels", "superpixel_share", 0.9),
        ("zoom_blur", "zoom_blur_factor", 1.5),
        ("crop", "crop_smallest", 0.9),
        ("elastic", "elastic_sigma", 2),
        ("elastic", "elastic_alpha", 50),
        ("elastic", "elastic_affine", 2),
    ],
)
def test_every_strength_reaches_its_change(change, strength, other):
    usual, changed = (augmented(a) for a in (always(change), always(change, **{strength: other})))
    assert (usual.image != changed.image).any()


def test_what_is_no_probability_is_refused():
    with pytest.raises(InputError, match=r"blur of the augmentation is 1\.5"):
        Augmentation(blur=1.5)
