import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cellvit_jax.errors import InputError
from cellvit_jax.models.dinov2 import GatedMlp, mean_weights, pool, resize_positions
from tests.networks import make, noise, run, small_config

UNI = small_config(encoder="dinov2", shared_trunk=True)
VIRCHOW = small_config(
    encoder="dinov2",
    patch_size=14,
    any_size=True,
    gate="gelu",
    num_registers=2,
    mlp_ratio=5.25,
    shared_trunk=True,
)


@pytest.mark.parametrize(("n", "m"), [(256, 252), (512, 504), (27, 14), (14, 14), (10, 3)])
def test_pooling_takes_plain_means_of_overlapping_windows(n, m):
    weights = mean_weights(n, m)
    for i in range(m):
        first, end = int(np.floor(i * n / m)), int(np.ceil((i + 1) * n / m))
        expected = np.zeros(n)
        expected[first:end] = 1 / (end - first)
        np.testing.assert_allclose(weights[i], expected, rtol=1e-6)


def test_images_that_fit_are_not_pooled():
    images = noise(1, 28, 42, 3)
    assert pool(images, (28, 42)) is images


def test_pooling_acts_on_both_axes():
    pooled = pool(noise(1, 30, 29, 3), (28, 14))
    expected = noise(1, 30, 29, 3)[0, 1:3, 2:5, 1].mean()
    assert mean_weights(30, 28)[1].nonzero()[0].tolist() == [1, 2]
    assert mean_weights(29, 14)[1].nonzero()[0].tolist() == [2, 3, 4]
    assert pooled[0, 1, 1, 1] == pytest.approx(float(expected), abs=1e-6)


def test_prefix_positions_are_kept_and_the_grid_is_averaged_when_it_shrinks():
    positions = noise(1, 3 + 16 * 16, 8)
    resized = resize_positions(positions, 16, (4, 8))
    assert resized.shape == (1, 3 + 32, 8)
    np.testing.assert_array_equal(resized[:, :3], positions[:, :3])
    # antialiased: the variance of noise falls with the number of values in a window
    assert float(resized[:, 3:].std()) < 0.6 * float(positions.std())


def test_the_stored_grid_is_used_as_it_is():
    positions = noise(1, 1 + 16, 8)
    np.testing.assert_array_equal(resize_positions(positions, 4, (4, 4)), positions)


@pytest.mark.parametrize("gate", ["gelu", "silu"])
def test_the_first_half_gates_the_second(gate):
    config = small_config(encoder="dinov2", gate=gate)
    mlp = GatedMlp(config, dtype=jnp.float32, rngs=nnx.Rngs(0))
    x = noise(1, 5, 16)
    a, b = np.split(np.asarray(mlp.fc1(x)), 2, axis=-1)
    gated = {"silu": a / (1 + np.exp(-a)), "gelu": a * jax.scipy.stats.norm.cdf(a)}[gate] * b
    np.testing.assert_allclose(mlp(x), mlp.fc2(jnp.asarray(gated)), atol=1e-5)


@pytest.mark.parametrize("size", [(14, 14), (31, 64)])
def test_virchow_takes_any_size_from_its_patch_up(size):
    maps = run(make(VIRCHOW), noise(2, *size, 3), tokens=True, skips=True)
    h, w = size[0] // 14, size[1] // 14
    assert maps["hv_map"].shape == (2, *size, 2)
    assert maps["tokens"].shape == (2, h, w, 16)
    assert maps["skip1"].shape == (2, 1 + 2 + h * w, 16)
    assert all(jnp.isfinite(value).all() for value in maps.values())


def test_virchow_refuses_less_than_a_patch():
    with pytest.raises(InputError, match="14 or more, not 13×64"):
        run(make(VIRCHOW), np.zeros((1, 13, 64, 3), np.float32))


def test_uni_takes_multiples_of_its_patch():
    model = make(UNI)
    assert run(model, noise(1, 48, 32, 3))["hv_map"].shape == (1, 48, 32, 2)
    with pytest.raises(InputError, match="multiples of the patch size 16, not 48×30"):
        run(model, np.zeros((1, 48, 30, 3), np.float32))


def test_the_last_norm_is_no_part_of_the_network():
    model, images = make(UNI), noise(1, 32, 32, 3)
    before = run(model, images)
    model.encoder.norm.scale[...] = noise(16)
    for name, value in run(model, images).items():
        np.testing.assert_array_equal(value, before[name])


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [({"encoder": "resnet"}, "encoder is one of .*'resnet'"), ({"gate": "relu"}, "gate is one of")],
)
def test_unknown_parts_are_refused(fields, sentence):
    with pytest.raises(InputError, match=sentence):
        small_config(**fields)
