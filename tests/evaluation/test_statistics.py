import math

import numpy as np
import pytest

from cellvit_jax.evaluation import statistics
from cellvit_jax.evaluation.scores import score_image
from cellvit_jax.evaluation.summary import evaluate
from tests.evaluation.cases import NAMES, made

CASES = [made(i, tissue) for i, tissue in enumerate("ABABB")]


def flat(tree):
    return {
        f"{name}.{inner}" if inner else name: number
        for name, value in tree.items()
        for inner, number in (flat(value) if isinstance(value, dict) else {"": value}).items()
    }


def test_weights_count_an_image_as_often_as_they_say():
    images = [score_image(case, list(NAMES)) for case in CASES]
    weighted = statistics.figures(images, NAMES, np.array([[2, 0, 1, 3, 0]]))
    drawn = [CASES[i] for i in (0, 0, 2, 3, 3, 3)]
    ours = flat(statistics.each(weighted, lambda values: float(values[0])))
    assert ours == pytest.approx(flat(evaluate(drawn, NAMES).figures), abs=1e-12, nan_ok=True)


def test_bootstrap_samples_are_drawn_with_replacement_by_their_seed():
    weights = statistics.resampled(7, samples=50, seed=3)
    assert weights.shape == (50, 7)
    assert (weights.sum(1) == 7).all()
    assert (weights == statistics.resampled(7, 50, 3)).all()
    assert (weights != statistics.resampled(7, 50, 4)).any()


def test_an_interval_of_a_mean_is_about_four_standard_errors_wide():
    values = np.random.default_rng(0).normal(size=400)
    means = statistics.resampled(400) @ values / 400
    low, high = statistics.interval(means)
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)


def test_a_figure_that_no_sample_defines_has_no_interval():
    assert all(math.isnan(bound) for bound in statistics.interval(np.full(9, np.nan)))
    assert statistics.interval(np.array([np.nan, 1.0, 1.0])) == (1, 1)
