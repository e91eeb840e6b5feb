"""Scores against their definitions, counted by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellvit_jax.heads.scores import auroc, average_precision, calibration, confusion, f1, scores

cases = st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=1, max_size=30)


@given(cases)
def test_auroc_is_the_share_of_pairs_in_order(rows):
    true, score = np.array([t for t, _ in rows]), np.array([s for _, s in rows])
    pairs = [(s > o) + (s == o) / 2 for s in score[true] for o in score[~true]]
    assert auroc(true, score) == pytest.approx(np.mean(pairs) if pairs else np.nan, nan_ok=True)


@given(cases)
def test_average_precision_is_the_sum_over_thresholds(rows):
    true, score = np.array([t for t, _ in rows]), np.array([s for _, s in rows], float)
    expected, recall = 0.0, 0.0
    for threshold in sorted(set(score.tolist()), reverse=True):
        chosen = score >= threshold
        new = (true & chosen).sum() / max(1, true.sum())
        expected += (new - recall) * (true & chosen).sum() / chosen.sum()
        recall = new
    found = average_precision(true, score)
    assert found == pytest.approx(expected) if true.any() else np.isnan(found)


def test_confusion_and_f1():
    counts = confusion(np.array([0, 0, 1, 2]), np.array([0, 1, 1, 1]), 4)
    assert counts.tolist() == [[1, 1, 0, 0], [0, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]
    assert f1(counts) == pytest.approx([2 / 3, 0.5, 0, np.nan], nan_ok=True)


def test_calibration_is_the_gap_of_confidence_and_accuracy():
    found = calibration(np.array([0, 0, 1, 0]), np.array([[0.9, 0.1]] * 2 + [[0.6, 0.4]] * 2))
    assert found["ece"] == pytest.approx(0.5 * 0.1 + 0.5 * 0.1)
    assert [b["accuracy"] for b in found["bins"]] == [0.5, 1.0]


def test_nothing_is_undefined_and_warns_of_nothing():
    found = scores(np.zeros(0, int), np.zeros((0, 3), np.float32))
    assert found["count"] == 0
    assert all(np.isnan(found[name]) for name in ("accuracy", "majority", "auroc", "ap", "f1"))


def test_the_largest_class_said_always_is_the_majority():
    assert scores(np.array([0, 1, 1, 1, 2]), np.eye(3)[[0, 0, 0, 1, 2]])["majority"] == 0.6
