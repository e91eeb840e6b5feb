"""What the three learn, against brute force and against what must not matter."""

import dataclasses

import jax
import numpy as np
import pytest
from flax import nnx
from scipy.special import log_softmax, softmax

from cellvit_jax.models import Abmil, AbmilConfig
from cellvit_jax.probes import abmil, knn, linear
from cellvit_jax.probes.bags import Bags
from cellvit_jax.probes.predict import ROWS, predicted
from tests.probes.makers import DIM, bags

CONFIG = AbmilConfig(DIM, hidden_dim=5, attention_dim=4, num_classes=3)
NONE = np.arange(0)
SHORT = abmil.Recipe(hidden_dim=8, attention_dim=4, epochs=12, batch_size=4, learning_rate=1e-2)


def by_hand(model: Abmil, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Equation 9 of Ilse et al. for one bag: logits, attention."""

    def layer(name, x):
        part = getattr(model, name)
        return x @ np.asarray(part.kernel[...]) + np.asarray(part.bias[...])

    hidden = np.maximum(layer("embed", np.float32(rows)), 0)
    gated = np.tanh(layer("content", hidden)) / (1 + np.exp(-layer("gate", hidden)))
    attention = softmax(layer("score", gated)[:, 0])
    return layer("classify", attention @ hidden), attention


def test_attention_is_that_of_the_paper_and_padding_does_not_matter():
    model = Abmil(CONFIG, rngs=nnx.Rngs(0))
    data = bags([0, 1, 2, 0], [3, 1, 7, 5])
    rng = np.random.default_rng(1)
    padded = rng.normal(size=(5, 16, DIM)).astype(np.float16)  # noise where there is no patch
    mask = np.zeros((5, 16), bool)
    for i in range(4):
        places = np.sort(rng.permutation(16)[: data.sizes[i]])
        mask[i, places] = True
        padded[i, places] = data.vectors[data.starts[i] : data.starts[i + 1]]
    logits, attention = jax.jit(lambda m, x, y: m(x, y))(model, padded, mask)
    said = predicted(model, data)
    for i in range(4):
        inside = np.s_[data.starts[i] : data.starts[i + 1]]
        expected = by_hand(model, data.vectors[inside])
        np.testing.assert_allclose(logits[i], expected[0], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(attention[i][mask[i]], expected[1], atol=1e-6)
        np.testing.assert_allclose(said.chances[i], softmax(expected[0]), atol=1e-5)
        np.testing.assert_allclose(said.attention[inside], expected[1], atol=1e-6)
    assert (np.asarray(attention)[~mask] == 0).all()
    np.testing.assert_allclose(logits[4], model.classify.bias[...])  # a bag without a patch


def test_the_size_of_a_bag_takes_no_further_program():
    from cellvit_jax.probes.predict import _encoded

    model = Abmil(CONFIG, rngs=nnx.Rngs(0))
    predicted(model, bags([0], [3]))
    before = _encoded._cache_size()
    large = bags([0, 1], [ROWS + 1, 2])
    said = predicted(model, large)
    assert _encoded._cache_size() == before
    np.testing.assert_allclose(said.attention[: ROWS + 1].sum(), 1, rtol=1e-5)
    alone = predicted(model, large.take(np.array([1])))
    np.testing.assert_allclose(said.chances[1], alone.chances[0], atol=1e-6)


def test_taking_and_pooling_bags_by_a_loop():
    data = bags([0, 1, 2, 1], [2, 5, 1, 3])
    chosen = np.array([3, 0, 1])
    part = data.take(chosen)
    rows = [data.vectors[data.starts[i] : data.starts[i + 1]] for i in chosen]
    np.testing.assert_array_equal(part.vectors, np.concatenate(rows))
    assert (part.names.tolist(), part.labels.tolist()) == (["s3", "s0", "s1"], [1, 0, 1])
    found = part.pooled(np.float32(part.vectors))
    np.testing.assert_allclose(found, [np.float32(r).mean(0) for r in rows], rtol=1e-5)
    assert len(data.take(NONE)) == 0


def test_the_linear_probe_is_at_the_minimum_of_its_loss():
    data = bags([0, 1, 2, 0, 1], [4, 9, 3, 5, 2], apart=1.0)
    l2 = 0.1
    fitted = linear.fit(data, data.take(NONE), 3, linear.Recipe(l2=l2))
    mean, std = np.float32(data.vectors).mean(0), np.float32(data.vectors).std(0)
    kernel = np.asarray(fitted.model.fc.kernel[...]) * std[:, None]
    bias = np.asarray(fitted.model.fc.bias[...]) + mean @ np.asarray(fitted.model.fc.kernel[...])
    x, y = (np.float32(data.vectors) - mean) / std, data.labels[data.owners]
    # slides weigh the same within a class, classes the same
    weights = np.array([1 / (2, 2, 1)[c] / 3 / data.sizes[i] for i, c in enumerate(data.labels)])
    weights = weights[data.owners]
    off = (np.exp(log_softmax(x @ kernel + bias, 1)) - np.eye(3)[y]) * weights[:, None]
    np.testing.assert_allclose(x.T @ off + l2 * kernel, 0, atol=2e-4)
    np.testing.assert_allclose(off.sum(0), 0, atol=2e-4)
    means = [p.mean(0) for p in np.split(fitted(data).patches, data.starts[1:-1])]
    np.testing.assert_allclose(fitted(data).chances, means, atol=1e-5)


def test_nearest_neighbours_by_brute_force(monkeypatch):
    monkeypatch.setattr(knn, "BLOCK", 8)  # several, the last not full
    known, asked = bags([0, 1, 2], [9, 6, 4], apart=1.0), bags([0, 1], [3, 2], seed=5)
    a, b = (np.float32(one.vectors) for one in (asked, known))
    a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
    order = np.argsort(-(a @ b.T), axis=1)[:, :5]
    cosines, places = knn.nearest(asked.vectors, known.vectors, 5)
    np.testing.assert_array_equal(places, order)
    np.testing.assert_allclose(cosines, np.take_along_axis(a @ b.T, order, 1), atol=1e-5)
    assert knn.nearest(asked.vectors, known.vectors, 50)[1].shape == (5, 19)
    found = knn.votes(cosines, places, known, 3, 0.07)
    expected = np.zeros((5, 3))
    for i in range(5):
        for cosine, place in zip(cosines[i], places[i], strict=True):
            expected[i, known.labels[known.owners[place]]] += np.exp(cosine / 0.07)
    np.testing.assert_allclose(found, expected / expected.sum(1, keepdims=True), rtol=1e-4)


METHODS = {
    "linear": (linear, linear.Recipe()),
    "knn": (knn, knn.Recipe()),
    "abmil": (abmil, SHORT),
}


@pytest.mark.parametrize("name", METHODS)
def test_classes_that_lie_apart_are_told_apart(name):
    if name == "abmil":
        pytest.importorskip("optax")
    method, recipe = METHODS[name]
    labels = [0, 1] * 6
    train, val, other = (bags(labels, [4, 7] * 6, seed=seed) for seed in range(3))
    fitted = method.fit(train, val, 2, recipe)
    assert (fitted(other).chances.argmax(1) == other.labels).all()
    again = method.fit(train, val, 2, recipe)
    np.testing.assert_array_equal(again(other).chances, fitted(other).chances)


@pytest.mark.parametrize("name", METHODS)
def test_a_class_without_a_slide_and_one_with_one_of_one_patch(name):
    if name == "abmil":
        pytest.importorskip("optax")
    method, recipe = METHODS[name]
    if name == "abmil":
        recipe = dataclasses.replace(recipe, epochs=2)
    train = bags([0, 0, 0, 2], [4, 5, 6, 1])
    chances = method.fit(train, train.take(NONE), 3, recipe)(train).chances
    assert chances.shape == (4, 3)
    assert np.isfinite(chances).all()
    np.testing.assert_allclose(chances.sum(1), 1, rtol=1e-4)


def test_an_epoch_shows_other_patches_of_large_slides():
    data = bags([0, 1], [40, 3])
    rng = np.random.default_rng(0)
    first, second = abmil.draws(rng, data, 20), abmil.draws(rng, data, 20)
    assert first.shape == (2, 32)
    for rows in (first, second):
        assert len(set(rows[0, :20].tolist())) == 20
        assert set(rows[0, :20].tolist()) <= set(range(40))
        assert sorted(rows[1, :3].tolist()) == [40, 41, 42]
        assert (rows[0, 20:] == -1).all()
        assert (rows[1, 3:] == -1).all()
    assert set(first[0].tolist()) != set(second[0].tolist())


def test_bags_are_pooled_whatever_their_order():
    model = Abmil(CONFIG, rngs=nnx.Rngs(0))
    data = bags([0, 1, 2], [3, 5, 2])
    shuffled = Bags(
        np.concatenate([data.vectors[2::-1], data.vectors[3:]]),
        data.starts,
        data.labels,
        data.groups,
        data.names,
    )
    one, other = predicted(model, data), predicted(model, shuffled)
    np.testing.assert_allclose(one.chances, other.chances, atol=1e-5)
    np.testing.assert_allclose(one.attention[2::-1], other.attention[:3], atol=1e-6)
