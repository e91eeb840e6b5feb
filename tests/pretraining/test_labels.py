"""Nearest neighbours, by hand and by loops."""

import numpy as np
import pytest

pytest.importorskip("grain")

from cellvit_jax.pretraining.labels import NEIGHBOURS, TEMPERATURE, nearest


def test_the_nearest_vote_by_their_similarity():
    rng = np.random.default_rng(0)
    known, vectors = rng.standard_normal((60, 3)), rng.standard_normal((25, 3))
    labels = rng.integers(0, 4, 60)
    expected = []
    for one in vectors:
        cosines = [one @ k / np.linalg.norm(one) / np.linalg.norm(k) for k in known]
        votes = [0.0] * 4
        for index in sorted(range(60), key=lambda i: -cosines[i])[:NEIGHBOURS]:
            votes[labels[index]] += np.exp(cosines[index] / TEMPERATURE)
        expected.append(int(np.argmax(votes)))
    assert nearest(known, labels, vectors).tolist() == expected
    assert len(set(expected)) > 1


def test_fewer_than_wanted_will_do():
    known, labels = np.eye(2), np.array([5, 0])
    assert nearest(known, labels, np.array([[1.0, 0.1], [0.1, 1.0]])).tolist() == [5, 0]
