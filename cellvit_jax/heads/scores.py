"""How good probabilities of classes are: ranking, decisions, calibration.

Classes are the columns 0..K-1 of the probabilities. What is undefined, such as the AUROC of a class
that nothing is of, is nan, and means leave it out.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from scipy.stats import rankdata

BINS = 10  # of confidence, in the calibration


def auroc(true: np.ndarray, score: np.ndarray) -> float:
    """Chance that one of the `true` (N,) has a higher score than one of the others; ties half."""
    positive = int(np.sum(true))
    negative = len(true) - positive
    if not positive or not negative:
        return float("nan")
    above = rankdata(score)[true].sum() - positive * (positive + 1) / 2
    return float(above / (positive * negative))


def average_precision(true: np.ndarray, score: np.ndarray) -> float:
    """Precision, averaged over the recall that each threshold adds; equal scores share one."""
    positive = int(np.sum(true))
    if not positive:
        return float("nan")
    order = np.argsort(-score, kind="stable")
    found = np.cumsum(true[order])
    last = np.flatnonzero(np.append(np.diff(score[order]) != 0, True))
    added = np.diff(found[last], prepend=0) / positive
    return float(np.sum(added * found[last] / (last + 1)))


def confusion(true: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Counts (classes, classes): row the true class, column the predicted one."""
    codes = np.asarray(true) * classes + predicted
    return np.bincount(codes, minlength=classes**2).reshape(classes, classes)


def f1(counts: np.ndarray) -> np.ndarray:
    """F1 of each class of a confusion matrix, nan where it is neither true nor predicted."""
    hits, total = np.diag(counts), counts.sum(0) + counts.sum(1)
    return np.divide(2.0 * hits, total, out=np.full(len(hits), np.nan), where=total > 0)


def calibration(true: np.ndarray, probabilities: np.ndarray) -> dict[str, Any]:
    """Expected calibration error, and of each bin of confidence its count, mean and accuracy."""
    confidence = probabilities.max(1, initial=0)
    right = probabilities.argmax(1) == true
    places = np.minimum((confidence * BINS).astype(int), BINS - 1)
    bins = []
    for i in np.unique(places):
        inside = places == i
        mean, share = float(confidence[inside].mean()), float(right[inside].mean())
        bins.append({"count": int(inside.sum()), "confidence": mean, "accuracy": share})
    off = sum(b["count"] * abs(b["confidence"] - b["accuracy"]) for b in bins)
    return {"ece": off / len(true) if len(true) else float("nan"), "bins": bins}


def scores(true: np.ndarray, probabilities: np.ndarray, what: str = "cells") -> dict[str, Any]:
    """All scores of probabilities (N, K) for the classes `true` (N,) of `what`, as plain values.

    `auroc`, `ap` and `f1` are means over the classes, each against all others, which `per_class`
    has one by one; `balanced_accuracy` is the mean over the classes of the share that is right,
    `majority` the accuracy of saying the largest class of these, always.
    """
    classes = probabilities.shape[1]
    counts = confusion(true, probabilities.argmax(1), classes)
    columns = {
        "auroc": [auroc(true == c, probabilities[:, c]) for c in range(classes)],
        "ap": [average_precision(true == c, probabilities[:, c]) for c in range(classes)],
        "f1": f1(counts).tolist(),
    }
    sizes = counts.sum(1)
    right = np.divide(np.diag(counts), sizes, out=np.full(classes, np.nan), where=sizes > 0)
    return {
        "what": what,
        "count": len(true),
        "accuracy": float(np.trace(counts) / len(true)) if len(true) else float("nan"),
        "balanced_accuracy": mean(right.tolist()),
        "majority": float(sizes.max() / len(true)) if len(true) else float("nan"),
        **{name: mean(values) for name, values in columns.items()},
        "per_class": columns | {"count": sizes.tolist()},
        "confusion": counts.tolist(),
        "calibration": calibration(true, probabilities),
    }


def mean(values: list[float]) -> float:
    """The mean of what is defined."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # nothing may be
        return float(np.nanmean(values))
