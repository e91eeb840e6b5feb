"""Cell classifier heads."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from cellvit_jax.models import CellClassifier, HeadConfig
from tests.networks import noise

CONFIG = HeadConfig(token_dim=12, hidden_dim=8, num_classes=3)


def test_logits_are_those_of_two_layers_around_a_relu():
    head = CellClassifier(CONFIG, rngs=nnx.Rngs(0))
    tokens = noise(2, 5, 12)
    logits = head(tokens)
    w1, b1, w2, b2 = (
        np.asarray(variable[...])
        for layer in (head.fc1, head.fc2)
        for variable in (layer.kernel, layer.bias)
    )
    expected = np.maximum(np.asarray(tokens) @ w1 + b1, 0) @ w2 + b2
    assert (logits.shape, logits.dtype) == ((2, 5, 3), jnp.float32)
    np.testing.assert_allclose(logits, expected, atol=1e-5)


def test_half_precision_gives_float32_logits():
    head = CellClassifier(CONFIG, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    exact = CellClassifier(CONFIG, rngs=nnx.Rngs(0))(noise(4, 12))
    found = head(noise(4, 12))
    assert found.dtype == jnp.float32
    assert 0 < jnp.abs(found - exact).max() < 0.1


def test_dropout_acts_in_training_alone():
    config = HeadConfig(12, 8, 3, drop_rate=0.5)
    head = CellClassifier(config, rngs=nnx.Rngs(0))
    still = nnx.view(head, deterministic=True)
    tokens = noise(16, 12)
    np.testing.assert_array_equal(still(tokens), still(tokens))
    assert not np.array_equal(head(tokens), still(tokens))


def test_a_head_is_a_tree_that_jit_takes():
    head = CellClassifier(CONFIG, rngs=nnx.Rngs(0))
    found = jax.jit(lambda head, x: head(x))(head, noise(4, 12))
    np.testing.assert_allclose(found, head(noise(4, 12)), atol=1e-5)
