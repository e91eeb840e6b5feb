"""Macenko's normalisation, on images that are made of two known stains."""

import numpy as np
import pytest

from cellvit_jax.data.normalise import normalised
from cellvit_jax.stains import Staining, stained_as, staining
from tests.training_data.fields import field

PINK = Staining((0.55, 0.76, 0.35), (0.13, 0.90, 0.42), (1.5, 0.8))


def made(true: Staining, seed: int = 0) -> np.ndarray:
    """An image with blue and with pink places, and some glass."""
    rng = np.random.default_rng(seed)
    amounts = rng.uniform(0, 1, (120, 100, 2)) * true.strongest
    amounts[:40, :, 0] = 0
    amounts[40:80, :, 1] = 0
    amounts[:, :10] = 0
    density = amounts @ [np.array(s) / np.linalg.norm(s) for s in (true.haematoxylin, true.eosin)]
    return np.clip(256 * np.exp(-density) - 1, 0, 255).round().astype(np.uint8)


def test_the_stains_of_an_image_are_found():
    found = staining(made(PINK))
    for name in ("haematoxylin", "eosin"):
        true = np.array(getattr(PINK, name)) / np.linalg.norm(getattr(PINK, name))
        assert np.dot(getattr(found, name), true) > 0.999
    np.testing.assert_allclose(found.strongest, PINK.strongest, rtol=0.05)


def test_an_image_takes_the_stains_of_another():
    changed = stained_as(made(PINK), staining(made(Staining())))
    assert changed.dtype == np.uint8
    assert np.abs(changed.astype(int) - made(Staining())).mean() < 3
    assert np.abs(made(PINK).astype(int) - made(Staining())).mean() > 10


def test_its_own_stains_change_nothing():
    image = made(PINK)
    assert np.abs(stained_as(image, staining(image)).astype(int) - image).mean() < 2


@pytest.mark.parametrize("level", [255, 240])
def test_glass_has_no_stains_and_stays_as_it_is(level):
    glass = np.full((32, 32, 3), level, np.uint8)
    assert staining(glass) is None
    assert stained_as(glass, Staining()) is glass


def test_fields_are_normalised_when_they_are_read():
    fields = normalised([field(), field()])
    assert len(list(fields)) == len(fields) == 2
    assert (fields[1].image != field().image).any()
    np.testing.assert_array_equal(fields[1].instances, field().instances)
