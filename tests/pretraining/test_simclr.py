"""The contrastive loss against its definition, and across devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("optax")

from cellvit_jax.pretraining.simclr import info_nce
from cellvit_jax.sharding import AXES, make_mesh


def pairs(count: int = 16, dim: int = 5, noise: float = 0.7) -> np.ndarray:
    rng = np.random.default_rng(0)
    middle = rng.standard_normal((count, 1, dim))
    return (middle + noise * rng.standard_normal((count, 2, dim))).astype(np.float32)


def by_hand(pairs: np.ndarray, temperature: float) -> tuple[float, float]:
    """One vector after the other, in float64."""
    z = pairs.reshape(-1, pairs.shape[-1]).astype(np.float64)
    losses, found = [], []
    for i, one in enumerate(z):
        similar = {
            j: float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))
            for j, other in enumerate(z)
            if j != i
        }
        twin = i + 1 if i % 2 == 0 else i - 1
        total = sum(np.exp(value / temperature) for value in similar.values())
        losses.append(-np.log(np.exp(similar[twin] / temperature) / total))
        found.append(max(similar, key=similar.__getitem__) == twin)
    return float(np.mean(losses)), float(np.mean(found))


@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_the_loss_is_what_the_paper_defines(temperature):
    loss, found = info_nce(jnp.asarray(pairs()), temperature)
    expected = by_hand(pairs(), temperature)
    assert 0.2 < expected[1] < 1
    assert (float(loss), float(found)) == pytest.approx(expected, rel=1e-5)


def test_negatives_are_those_of_all_devices():
    everywhere = jax.NamedSharding(make_mesh(), jax.P(AXES))
    z = pairs(24)
    loss = jax.jit(info_nce, static_argnames="temperature")
    divided = loss(jax.device_put(z, everywhere), temperature=0.1)[0]
    assert float(divided) == pytest.approx(float(loss(z, temperature=0.1)[0]), rel=1e-5)
    # what devices would find that knew of nothing but their own
    own = np.mean([by_hand(part, 0.1)[0] for part in np.split(z, 8)])
    assert float(divided) > 1.5 * own


def test_gradients_are_those_of_one_device():
    everywhere = jax.NamedSharding(make_mesh(), jax.P(AXES))
    slope = jax.jit(jax.grad(lambda z: info_nce(z, 0.1)[0]))
    alone, divided = slope(pairs()), slope(jax.device_put(pairs(), everywhere))
    assert np.isfinite(alone).all()
    np.testing.assert_allclose(divided, alone, atol=1e-6)


def test_length_does_not_count():
    scale = np.random.default_rng(1).uniform(0.5, 2, (16, 2, 1)).astype(np.float32)
    one, other = (float(info_nce(jnp.asarray(z), 0.1)[0]) for z in (pairs(), pairs() * scale))
    assert one == pytest.approx(other, rel=1e-5)
