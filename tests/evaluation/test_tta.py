import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cellvit_jax.errors import InputError
from cellvit_jax.evaluation.tta import VIEWS, EightViews, seen_back, seen_so
from cellvit_jax.inference.predictor import Predictor
from tests.networks import CARD, inference, make, noise, small_config


class Equivariant(nnx.Module):
    """What it says of a pixel turns with the image: gradients for hv, sums of neighbours else."""

    def __call__(self, images, *, tokens=False):
        grey = images.mean(-1)
        around = sum(jnp.roll(grey, step, axis) for step in (-1, 1) for axis in (1, 2))
        y, x = (jnp.roll(grey, -1, axis) - jnp.roll(grey, 1, axis) for axis in (1, 2))
        return {
            "nuclei_binary_map": jnp.stack([grey, around], -1),
            "nuclei_type_map": jnp.stack([grey, around, grey * around], -1),
            "hv_map": jnp.stack([x, y], -1),
            "tissue_types": jnp.stack([grey.mean((1, 2)), grey.max((1, 2))], -1),
        }


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("vectors", [False, True])
def test_there_and_back_is_nothing(view, vectors):
    maps = noise(2, 6, 6, 2)
    back = seen_back(seen_so(maps, view, vectors=vectors), view, vectors=vectors)
    assert (back == maps).all()


def test_all_eight_views_differ():
    seen = {np.asarray(seen_so(noise(1, 4, 4, 1), view)).tobytes() for view in VIEWS}
    assert len(seen) == 8


@pytest.mark.parametrize("view", VIEWS)
def test_the_distances_of_a_view_are_those_of_the_image_in_that_view(view):
    images = noise(1, 8, 8, 3)
    plain = Equivariant()(images)["hv_map"]
    turned = Equivariant()(seen_so(images, view))["hv_map"]
    np.testing.assert_allclose(turned, seen_so(plain, view, vectors=True), atol=1e-6)


def test_of_an_equivariant_network_the_mean_is_the_plain_output():
    images = noise(2, 8, 8, 3)
    plain, mean = Equivariant()(images), EightViews(Equivariant())(images)
    for name, values in plain.items():
        probable = name != "hv_map"
        ours, theirs = (jax.nn.softmax(v) if probable else v for v in (mean[name], values))
        np.testing.assert_allclose(ours, theirs, atol=1e-6, err_msg=name)


def test_the_mean_does_not_depend_on_how_the_image_is_turned():
    network = EightViews(inference(make(small_config())))
    images = noise(1, 32, 32, 3)
    upright, turned = network(images), network(seen_so(images, VIEWS[5]))
    back = seen_back(turned["hv_map"], VIEWS[5], vectors=True)
    np.testing.assert_allclose(back, upright["hv_map"], atol=1e-5)


def test_it_takes_the_place_of_a_network_in_a_predictor():
    predictor = Predictor(EightViews(inference(make(small_config()))), CARD, batch_size=1)
    (maps,) = predictor([np.zeros((32, 32, 3), np.uint8)])
    assert maps["edge"].shape == (32, 32)
    np.testing.assert_allclose(maps["probabilities"].sum(-1, dtype=int), 255, atol=2)


def test_only_squares_can_be_turned():
    with pytest.raises(InputError, match="square"):
        EightViews(Equivariant())(noise(1, 8, 4, 3))
