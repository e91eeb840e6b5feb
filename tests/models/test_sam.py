"""Whole SAMs: what they take and give, and what does not matter to them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cellvit_jax.errors import InputError
from cellvit_jax.models import Sam, SamConfig
from cellvit_jax.models.prompt_encoder import Constant
from cellvit_jax.models.sam_vit import Doubling
from tests.networks import noise, small_sam, small_sam_config

SIDE = 64
POINTS = jnp.array([[[10.0, 20.0], [40.0, 50.0]], [[5.0, 60.0], [33.0, 3.0]]])
LABELS = jnp.array([[1, 0], [2, 3]])
embed, decode = jax.jit(Sam.embed), jax.jit(Sam.decode)


@pytest.fixture(scope="module")
def embedded() -> jax.Array:
    return embed(small_sam(), noise(1, SIDE, SIDE, 3))


@pytest.mark.parametrize("adapters", [False, True])
def test_an_image_and_prompts_give_four_masks_each(adapters):
    model = small_sam(adapters=adapters)
    found = embed(model, noise(2, SIDE, SIDE, 3))
    assert (found.shape, found.dtype) == ((2, 4, 4, 256), jnp.float32)
    masks = decode(model, found, POINTS, LABELS)
    assert (masks.logits.shape, masks.iou.shape) == ((2, 16, 16, 4), (2, 4))
    both = jax.jit(Sam.__call__)(model, noise(2, SIDE, SIDE, 3), POINTS, LABELS)
    np.testing.assert_allclose(both.logits, masks.logits, atol=1e-4)


def test_prompts_of_one_image_do_not_see_each_other(embedded):
    together = decode(small_sam(), embedded, POINTS, LABELS)
    for i in range(2):
        alone = decode(small_sam(), embedded, POINTS[i : i + 1], LABELS[i : i + 1])
        np.testing.assert_allclose(alone.logits[0], together.logits[i], atol=1e-5)


def test_the_order_of_points_does_not_matter(embedded):
    one = decode(small_sam(), embedded, POINTS, LABELS)
    other = decode(small_sam(), embedded, POINTS[:, ::-1], LABELS[:, ::-1])
    np.testing.assert_allclose(one.logits, other.logits, atol=1e-4)


def test_no_point_has_no_place(embedded):
    none = jnp.full((2, 1), -1)
    found = [
        decode(small_sam(), embedded, jnp.full((2, 1, 2), place), none).logits
        for place in (3.0, 50.0)
    ]
    np.testing.assert_array_equal(*found)


def test_points_labels_and_masks_make_a_difference(embedded):
    usual = decode(small_sam(), embedded, POINTS, LABELS).logits
    others = [
        decode(small_sam(), embedded, POINTS + 7, LABELS),
        decode(small_sam(), embedded, POINTS, 1 - LABELS),
        decode(small_sam(), embedded, POINTS, LABELS, noise(2, 16, 16)),
    ]
    for other in others:
        assert np.abs(other.logits - usual).max() > 1e-3


@pytest.mark.parametrize("shape", [(1, 48, 64, 3), (1, 128, 128, 3), (64, 64, 3), (0, 64, 64, 3)])
def test_another_size_is_refused(shape):
    with pytest.raises(InputError, match=r"images of shape \(B, 64, 64, 3\)"):
        small_sam().embed(jnp.zeros(shape))


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"architecture": "sam_x"}, "no SAM called 'sam_x'"),
        ({"num_heads": 5}, "not divisible by 5 heads"),
        ({"adapters": True, "position_grid": 5}, "must be even, not 5"),
    ],
)
def test_configs_that_cannot_be_are_refused(fields, sentence):
    with pytest.raises(InputError, match=sentence):
        small_sam_config(**fields)


@pytest.mark.parametrize("size", "blh")
@pytest.mark.parametrize("kind", ["sam", "sam_med2d"])
def test_configs_come_back_from_plain_values(kind, size):
    config = getattr(SamConfig, f"{kind}_{size}")()
    assert SamConfig.from_dict(config.to_dict()) == config
    assert config.image_size == (256 if config.stretches else 1024)
    with pytest.raises(InputError, match="unknown fields"):
        SamConfig.from_dict(config.to_dict() | {"colour": 1})


def test_the_compute_type_leaves_outputs_in_float32(embedded):
    model = nnx.eval_shape(lambda: Sam(small_sam_config(), dtype=jnp.bfloat16, rngs=nnx.Rngs(0)))
    nnx.update(model, nnx.state(small_sam()))
    found, exact = (
        decode(network, embedded, POINTS, LABELS, noise(2, 16, 16))
        for network in (model, small_sam())
    )
    assert found.logits.dtype == found.iou.dtype == jnp.float32
    difference = jnp.linalg.norm(found.logits - exact.logits)
    assert 0 < difference < 0.05 * jnp.linalg.norm(exact.logits)


def test_doubling_is_the_gradient_of_a_convolution():
    up = Doubling(3, dtype=jnp.float32, rngs=nnx.Rngs(0))
    x = noise(2, 3, 5, 3)

    def down(image):
        kernel = up.kernel[...].transpose(1, 2, 3, 0)
        padding = ((1, 1), (1, 1))
        return jax.lax.conv_general_dilated(
            image, kernel, (2, 2), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    (expected,) = jax.linear_transpose(down, jnp.zeros((2, 6, 10, 3)))(x)
    np.testing.assert_allclose(up(x), expected, atol=1e-5)


def test_frequencies_are_no_parameter():
    state = nnx.state(small_sam(), Constant)
    assert [path for path, _ in nnx.to_flat_state(state)] == [("prompt_encoder", "frequencies")]
