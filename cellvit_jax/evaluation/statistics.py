"""From the scores of images to those of a set of images, and how sure those are.

Every figure is a function of how often each image counts: once for the figure itself, as often as
chance drew it for a bootstrap. So both are one piece of code, and a thousand samples one product of
matrices. Weights are (samples, images).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from cellvit_jax import metrics
from cellvit_jax.evaluation.scores import ImageScores, Scores, rates
from cellvit_jax.metrics import Detection

Tree = dict[str, Any]  # of names, down to figures

SAMPLES, SEED, LEVEL = 1000, 0, 0.95


def figures(
    images: Sequence[ImageScores], class_names: Mapping[int, str], weights: np.ndarray
) -> Tree:
    """All figures of a set, an array with one value a sample each.

    `image_mean` (over the images where a figure is defined), `tissue_mean` (the mean over tissues
    of the means over their images), `tissues` (those means), `pooled` (from counts summed over all
    images), and under `classes` the same of each class. `mpq_plus`, among the pooled ones, is the
    mean over classes of their pooled `pq`.
    """
    typed = [i for i, image in enumerate(images) if image.classes]
    tissues = [image.tissue for image in images]
    classes = {
        name: _part(
            [images[i].classes[c] for i in typed], [tissues[i] for i in typed], weights[:, typed]
        )
        for c, name in class_names.items()
        if len(typed)
    }
    overall = _part([image.overall for image in images], tissues, weights)
    pooled = overall["pooled"]
    pooled["bpq"] = pooled.pop("pq")
    if classes:
        pooled["mpq_plus"] = _nanmean([one["pooled"]["pq"] for one in classes.values()])
    return overall | {"classes": classes}


def resampled(images: int, samples: int = SAMPLES, seed: int = SEED) -> np.ndarray:
    """Weights of so many draws of as many images as there are, with replacement."""
    return np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images), samples)


def interval(values: np.ndarray, level: float = LEVEL) -> tuple[float, float]:
    """The percentile interval of the samples in which a figure is defined."""
    defined = values[~np.isnan(values)]
    if not len(defined):
        return math.nan, math.nan
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def each(tree: Tree, function: Callable[[np.ndarray], Any]) -> Tree:
    """The tree with `function` of every figure."""
    return {
        name: each(value, function) if isinstance(value, dict) else function(value)
        for name, value in tree.items()
    }


def _part(scores: Sequence[Scores], tissues: Sequence[str | None], weights: np.ndarray) -> Tree:
    rows = [score.figures for score in scores]
    names = list(rows[0])
    values = np.array([[row[name] for name in names] for row in rows])
    by_tissue = {
        tissue: _means(names, values[inside], weights[:, inside])
        for tissue in sorted({t for t in tissues if t is not None})
        if (inside := np.array([t == tissue for t in tissues])).any()
    }
    overall = {
        name: _nanmean([means[name] for means in by_tissue.values()]) for name in names if by_tissue
    }
    return {
        "image_mean": _means(names, values, weights),
        "tissue_mean": overall,
        "tissues": by_tissue,
        "pooled": _pooled(scores, weights),
    }


def _means(names: Sequence[str], values: np.ndarray, weights: np.ndarray) -> Tree:
    defined = ~np.isnan(values)
    total = weights @ np.where(defined, values, 0)
    return dict(zip(names, metrics.ratio(total, weights @ defined.astype(int)).T, strict=True))


def _pooled(scores: Sequence[Scores], weights: np.ndarray) -> Tree:
    matched = weights @ np.array([score.matched for score in scores])
    counts = ("tp", "fp", "fn", "fp_type", "fn_type")
    found = weights @ np.array([[getattr(s.detection, key) for key in counts] for s in scores])
    return metrics.pooled_quality(*matched.T) | rates(Detection(*found.T))


def _nanmean(rows: Sequence[np.ndarray]) -> np.ndarray:
    stack = np.stack(rows)
    return metrics.ratio(np.nansum(stack, axis=0), np.sum(~np.isnan(stack), axis=0))
