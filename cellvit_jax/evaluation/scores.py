"""Scores of predicted nuclei against annotated ones in one image.

bPQ is the panoptic quality of all nuclei; mPQ the mean over classes of the panoptic quality of each
class, mDQ that of its factor DQ, where a class that is absent from both truth and prediction of an
image does not count.
No JAX here: this is what worker processes do.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from cellvit_jax import metrics
from cellvit_jax.metrics import Detection

Figures = dict[str, float]


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """One image: its annotation and what was predicted for it.

    `true` and `pred` are (H, W) instance maps, 0 = background; `true_types` is an (H, W) map of
    class ids, or None where the annotation has no types; `pred_types` gives the class of each
    predicted instance by its id, and those left out have none. `tissue` and `pred_tissue` are
    names, or None where nobody said.
    """

    name: str
    true: np.ndarray
    pred: np.ndarray
    true_types: np.ndarray | None = None
    pred_types: Mapping[int, int] = dataclasses.field(default_factory=dict)
    tissue: str | None = None
    pred_tissue: str | None = None


@dataclasses.dataclass(frozen=True)
class Scores:
    """What the nuclei of one image, or those of one class in it, come to.

    `matched` are the true and false positives, the false negatives and the summed IoU of instances
    that match at IoU > 0.5; `detection` counts centroids.
    """

    nuclei: int  # annotated ones
    quality: Figures  # of an image those of `score_image`, of a class dq, sq and pq
    matched: tuple[float, float, float, float]
    detection: Detection

    @property
    def figures(self) -> Figures:
        """The qualities, then `precision`, `recall` and `f1`; nan where undefined."""
        return self.quality | rates(self.detection)


@dataclasses.dataclass(frozen=True)
class ImageScores:
    """The scores of one image; `classes` (by id) is empty where the annotation has no types."""

    name: str
    overall: Scores
    classes: dict[int, Scores]
    tissue: str | None = None


def score_image(case: Case, classes: Sequence[int], radius: float = 12.0) -> ImageScores:
    """The scores of one case for the given class ids.

    `radius` is the largest distance, in pixels of the maps, at which centroids pair. Qualities of
    the image: `bpq`, its factors `dq` and `sq`, `mpq`, `mdq`, `aji`, `aji_plus`, `dice`, `jaccard`,
    and `tissue_accuracy`, 1 or 0. Raises InputError where the maps do not fit each other.
    """
    points = metrics.centroids(case.true), metrics.centroids(case.pred)
    quality = metrics.panoptic_quality(case.true, case.pred)
    by_class = {}
    if case.true_types is not None and classes:
        true_types = metrics.instance_types(case.true, case.true_types)
        by_class = _score_classes(case, true_types, points, classes, radius)
    qualities = {
        "bpq": quality["pq"],
        "mpq": _nanmean(scores.quality["pq"] for scores in by_class.values()),
        "mdq": _nanmean(scores.quality["dq"] for scores in by_class.values()),
        "dq": quality["dq"],
        "sq": quality["sq"],
        "aji": metrics.aggregated_jaccard(case.true, case.pred),
        "aji_plus": metrics.aggregated_jaccard_plus(case.true, case.pred),
        "dice": metrics.dice(case.true, case.pred),
        "jaccard": metrics.jaccard(case.true, case.pred),
        "tissue_accuracy": _tissue_accuracy(case),
    }
    found = metrics.detection(*points, radius)
    overall = Scores(len(points[0]), qualities, _matched(quality), found)
    return ImageScores(case.name, overall, by_class, case.tissue)


def rates(detection: Detection) -> Figures:
    """`precision`, `recall` and `f1` of counts."""
    return {key: getattr(detection, key) for key in ("precision", "recall", "f1")}


def _score_classes(
    case: Case,
    true_types: np.ndarray,
    points: tuple[np.ndarray, np.ndarray],
    classes: Sequence[int],
    radius: float,
) -> dict[int, Scores]:
    pred_ids = np.unique(case.pred[case.pred > 0])
    pred_types = np.array([case.pred_types.get(int(i), 0) for i in pred_ids], np.int64)
    quality = metrics.panoptic_quality_per_class(
        case.true, true_types, case.pred, pred_types, classes
    )
    found = metrics.typed_detection(points[0], true_types, points[1], pred_types, radius, classes)
    return {
        c: Scores(
            int(np.sum(true_types == c)),
            {key: quality[c][key] for key in ("pq", "dq", "sq")},
            _matched(quality[c]),
            found[c],
        )
        for c in classes
    }


def _matched(quality: Figures) -> tuple[float, float, float, float]:
    return quality["tp"], quality["fp"], quality["fn"], quality["iou"]


def _tissue_accuracy(case: Case) -> float:
    if case.tissue is None or case.pred_tissue is None:
        return math.nan
    return float(case.tissue == case.pred_tissue)


def _nanmean(values: Iterable[float]) -> float:
    defined = [value for value in values if not math.isnan(value)]
    return sum(defined) / len(defined) if defined else math.nan
