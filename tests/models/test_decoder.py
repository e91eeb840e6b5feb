import jax.numpy as jnp
import numpy as np
from flax import nnx

from cellvit_jax.models.decoder import BatchNorm, Upsample
from tests.networks import noise


def test_upsample_is_a_transposed_convolution_of_stride_two():
    layer = Upsample(3, 5, dtype=jnp.float32, rngs=nnx.Rngs(0))
    layer.bias[...] = noise(5)
    x = noise(2, 4, 3, 3)
    y = layer(x)
    assert y.shape == (2, 8, 6, 5)
    for row, column in [(0, 0), (5, 2), (7, 5)]:
        kernel = layer.kernel[row % 2, column % 2]
        expected = x[:, row // 2, column // 2] @ kernel + layer.bias[...].reshape(1, -1)
        np.testing.assert_allclose(y[:, row, column], expected, atol=1e-5)


def test_upsample_equals_the_dilated_form():
    layer = Upsample(3, 5, dtype=jnp.float32, rngs=nnx.Rngs(0))
    twin = nnx.ConvTranspose(
        3, 5, kernel_size=(2, 2), strides=(2, 2), padding="VALID", rngs=nnx.Rngs(1)
    )
    twin.kernel[...] = layer.kernel[::-1, ::-1]
    np.testing.assert_allclose(layer(noise(1, 4, 4, 3)), twin(noise(1, 4, 4, 3)), atol=1e-5)


def test_the_running_variance_is_unbiased_and_outputs_are_not():
    norm = BatchNorm(3, dtype=jnp.float32, rngs=nnx.Rngs(0))
    x = np.random.default_rng(0).normal(2, 3, (2, 2, 3, 3)).astype(np.float32)
    values = x.reshape(-1, 3)
    y = norm(x)
    np.testing.assert_allclose(y.reshape(-1, 3).var(0), 1, rtol=1e-4)
    np.testing.assert_allclose(norm.mean[...], 0.1 * values.mean(0), rtol=1e-5)
    np.testing.assert_allclose(norm.var[...], 0.9 + 0.1 * values.var(0, ddof=1), rtol=1e-5)
    rested = nnx.view(norm, use_running_average=True)
    rested(x)
    np.testing.assert_allclose(norm.var[...], 0.9 + 0.1 * values.var(0, ddof=1), rtol=1e-5)
