"""Panoptic quality and its kin, as the field defines them.

Instance maps are (H, W) integer arrays, 0 = background; ids may have gaps and any integer type.
Types of instances are given as one array in ascending order of the ids. What divides zero by zero
is undefined and comes out as nan.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

from cellvit_jax.errors import InputError

Number = float | np.ndarray
_EPS = 1e-6  # as in the published PQ, so that equal inputs give equal digits


class _Labels(NamedTuple):
    """An instance map with ids 1..N, where `areas[i]` is the size of instance i (0: background)."""

    map: np.ndarray
    ids: np.ndarray
    areas: np.ndarray

    @property
    def number(self) -> int:
        return len(self.ids)


class _Pairs(NamedTuple):
    """Every overlapping pair of a true and a predicted instance, in ascending (true, pred)."""

    true: np.ndarray
    pred: np.ndarray
    intersection: np.ndarray
    union: np.ndarray

    @property
    def iou(self) -> np.ndarray:
        return self.intersection / self.union


def panoptic_quality(true: np.ndarray, pred: np.ndarray) -> dict[str, float]:
    """Panoptic quality of one pair of instance maps: `dq`, `sq`, `pq` and what is behind them.

    That is the counts `tp`, `fp`, `fn`, and `iou`, the sum over the matches; instances match where
    IoU > 0.5. Of two empty maps every score is nan.
    """
    true_labels, pred_labels = _label_pair(true, pred)
    iou = _pairs(true_labels, pred_labels).iou
    return _quality(iou[iou > 0.5], true_labels.number, pred_labels.number)


def panoptic_quality_per_class(
    true: np.ndarray,
    true_types: np.ndarray,
    pred: np.ndarray,
    pred_types: np.ndarray,
    classes: Iterable[int] | None = None,
) -> dict[int, dict[str, float]]:
    """`panoptic_quality` of the instances of each class, by class id.

    `true_types` and `pred_types` hold one type per instance in ascending order of the ids.
    `classes` defaults to every class that occurs; one that occurs on neither side scores nan.
    """
    true_labels, pred_labels = _label_pair(true, pred)
    true_types = _one_each(true_types, true_labels.number, "true")
    pred_types = _one_each(pred_types, pred_labels.number, "predicted")
    pairs = _pairs(true_labels, pred_labels)
    matched = pairs.iou > 0.5
    true_class = true_types[pairs.true[matched] - 1]
    agreed = np.where(true_class == pred_types[pairs.pred[matched] - 1], true_class, 0)
    iou = pairs.iou[matched]
    return {
        c: _quality(iou[agreed == c], np.sum(true_types == c), np.sum(pred_types == c))
        for c in _classes(classes, true_types, pred_types)
    }


def pooled_quality(tp: Number, fp: Number, fn: Number, iou: Number) -> dict[str, Any]:
    """`dq`, `sq` and `pq` of counts and summed IoU, which may be those of many images together.

    They may be arrays of one shape as well. Where nothing was counted the scores are nan.
    """
    dq = np.where(tp + fp + fn > 0, tp / (tp + 0.5 * fp + 0.5 * fn + _EPS), np.nan)
    sq = np.where(tp + fp + fn > 0, iou / (tp + _EPS), np.nan)
    return {"dq": dq, "sq": sq, "pq": dq * sq}


def aggregated_jaccard(true: np.ndarray, pred: np.ndarray) -> float:
    """Aggregated Jaccard index (AJI): each true instance takes its prediction of highest IoU.

    Of equally good predictions it takes that of the lowest id.
    """
    true_labels, pred_labels = _label_pair(true, pred)
    pairs = _pairs(true_labels, pred_labels)
    order = np.lexsort((-pairs.iou, pairs.true))
    best = order[np.unique(pairs.true[order], return_index=True)[1]]
    return _aggregate(true_labels, pred_labels, pairs, best)


def aggregated_jaccard_plus(true: np.ndarray, pred: np.ndarray) -> float:
    """AJI+: as AJI, under the one-to-one assignment of maximal summed IoU (needs SciPy)."""
    true_labels, pred_labels = _label_pair(true, pred)
    pairs = _pairs(true_labels, pred_labels)
    gain = np.zeros((true_labels.number, pred_labels.number))
    gain[pairs.true - 1, pairs.pred - 1] = pairs.iou
    rows, columns = linear_sum_assignment(-gain)
    kept = np.zeros(gain.shape, bool)
    kept[rows, columns] = True
    return _aggregate(
        true_labels, pred_labels, pairs, np.flatnonzero(kept[pairs.true - 1, pairs.pred - 1])
    )


def dice(true: np.ndarray, pred: np.ndarray) -> float:
    """Dice coefficient of the two foregrounds."""
    a, b = (labels.map > 0 for labels in _label_pair(true, pred))
    return ratio(2 * int(np.sum(a & b)), int(np.sum(a)) + int(np.sum(b)))


def jaccard(true: np.ndarray, pred: np.ndarray) -> float:
    """Jaccard index, intersection over union, of the two foregrounds."""
    a, b = (labels.map > 0 for labels in _label_pair(true, pred))
    return ratio(int(np.sum(a & b)), int(np.sum(a | b)))


def ratio(numerator: Number, denominator: Number) -> Any:
    """Their quotient, nan where the denominator is zero; of arrays an array, else a float."""
    undefined = np.full(np.broadcast_shapes(np.shape(numerator), np.shape(denominator)), np.nan)
    quotient = np.divide(numerator, denominator, out=undefined, where=np.asarray(denominator) != 0)
    return quotient if quotient.ndim else float(quotient)


@dataclasses.dataclass(frozen=True)
class Detection:
    """Counts of a detection, of all nuclei or of one type; a sum of them pools images.

    `fp` and `fn` are unpaired predictions and true nuclei. `fp_type` and `fn_type` are pairs that
    only the prediction, or only the truth, gives the type in question; they weigh double.
    """

    tp: int = 0
    fp: int = 0
    fn: int = 0
    fp_type: int = 0
    fn_type: int = 0

    def __add__(self, other: Detection) -> Detection:
        ours, theirs = dataclasses.astuple(self), dataclasses.astuple(other)
        return Detection(*(a + b for a, b in zip(ours, theirs, strict=True)))

    @property
    def precision(self) -> float:
        """Share of the predictions that are right; nan without any."""
        return ratio(self.tp, self.tp + 2 * self.fp_type + self.fp)

    @property
    def recall(self) -> float:
        """Share of the true nuclei that are found; nan without any."""
        return ratio(self.tp, self.tp + 2 * self.fn_type + self.fn)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; nan where there is nothing at all."""
        errors = 2 * (self.fp_type + self.fn_type) + self.fp + self.fn
        return ratio(2 * self.tp, 2 * self.tp + errors)


def detection(true: np.ndarray, pred: np.ndarray, radius: float = 12.0) -> Detection:
    """How many of the (N, 2) true points are found by the (M, 2) predicted ones.

    Points pair by the assignment of least summed distance; pairs farther apart than `radius`
    (in the unit of the points; the custom is 12 px at 40x, 6 px at 20x) come apart again.
    """
    true_pairs, _ = match_points(true, pred, radius)
    tp = len(true_pairs)
    return Detection(tp, len(pred) - tp, len(true) - tp)


def typed_detection(
    true: np.ndarray,
    true_types: np.ndarray,
    pred: np.ndarray,
    pred_types: np.ndarray,
    radius: float = 12.0,
    classes: Iterable[int] | None = None,
) -> dict[int, Detection]:
    """`detection` of each type, by type id; points pair regardless of their types.

    The types are one per point. `classes` defaults to every type that occurs, 0 left out.
    """
    true_types = _one_each(true_types, len(true), "true")
    pred_types = _one_each(pred_types, len(pred), "predicted")
    t, p = match_points(true, pred, radius)
    return {
        c: _count_type(true_types == c, pred_types == c, t, p)
        for c in _classes(classes, true_types, pred_types)
    }


def match_points(
    true: np.ndarray, pred: np.ndarray, radius: float
) -> tuple[np.ndarray, np.ndarray]:
    """Indices of paired true and predicted points: see `detection` (needs SciPy)."""
    true, pred = _points(true), _points(pred)
    distance = np.hypot(*(true[:, None, axis] - pred[None, :, axis] for axis in (0, 1)))
    rows, columns = linear_sum_assignment(distance)
    near = distance[rows, columns] <= radius
    return rows[near], columns[near]


def centroids(instances: np.ndarray) -> np.ndarray:
    """Mean pixel position (x, y) of each instance, (N, 2) float64, in ascending order of ids."""
    labels = _label(instances)
    inside = np.flatnonzero(labels.map)
    values = labels.map.ravel()[inside]
    rows, columns = np.divmod(inside, labels.map.shape[1])
    sums = [np.bincount(values, axis, labels.number + 1)[1:] for axis in (columns, rows)]
    return np.stack(sums, axis=1) / labels.areas[1:, None]


def instance_types(instances: np.ndarray, type_map: np.ndarray) -> np.ndarray:
    """Type of each instance, (N,) int64 in ascending order of ids: that of most of its pixels.

    `type_map` is (H, W) with ids from 0 up; of equally frequent types the lowest is taken.
    """
    labels, types = _label_pair(instances, type_map)
    stride = types.number + 1
    votes = np.bincount(
        (labels.map * stride + types.map).ravel(), minlength=(labels.number + 1) * stride
    )
    winners = votes.reshape(-1, stride)[1:].argmax(axis=1)
    return np.concatenate([[0], types.ids])[winners].astype(np.int64)


def _label_pair(true: np.ndarray, pred: np.ndarray) -> tuple[_Labels, _Labels]:
    if np.shape(true) != np.shape(pred):
        raise InputError(f"two maps of one size are needed, not {np.shape(true)}, {np.shape(pred)}")
    return _label(true), _label(pred)


def _label(instances: np.ndarray) -> _Labels:
    instances = np.asarray(instances)
    if instances.ndim != 2 or instances.dtype.kind not in "iub":
        raise InputError(
            f"a map of ids is a two-dimensional integer array, not {instances.dtype} of shape "
            f"{instances.shape}"
        )
    if instances.size and instances.min() < 0:
        raise InputError("a map of ids holds no negative numbers")
    return _renumber(instances)


def _renumber(instances: np.ndarray) -> _Labels:
    if instances.max(initial=0) > instances.size:  # too sparse to count into a table
        originals, positions = np.unique(instances, return_inverse=True)
        shift = int(originals[0] != 0)  # a map without background has its first id at 1
        labels = _renumber(positions + shift)
        return labels._replace(ids=originals[labels.ids - shift])
    values = instances.astype(np.int64)
    areas = np.bincount(values.ravel(), minlength=1)
    ids = np.flatnonzero(areas[1:]) + 1
    if len(ids) < len(areas) - 1:
        values = np.cumsum(np.append(False, areas[1:] > 0))[values]
    return _Labels(values, ids, areas[np.append(0, ids)])


def _pairs(true: _Labels, pred: _Labels) -> _Pairs:
    stride = pred.number + 1
    codes, intersection = _tally((true.map * stride + pred.map).ravel())
    t, p = np.divmod(codes, stride)
    both = (t > 0) & (p > 0)
    t, p, intersection = t[both], p[both], intersection[both]
    return _Pairs(t, p, intersection, true.areas[t] + pred.areas[p] - intersection)


def _tally(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct codes and how often each occurs; sorts only where a table would waste memory."""
    if codes.max(initial=0) > 2**20 + 4 * codes.size:
        return np.unique(codes, return_counts=True)
    counts = np.bincount(codes)
    distinct = np.flatnonzero(counts)
    return distinct, counts[distinct]


def _quality(matched_iou: np.ndarray, true_count: int, pred_count: int) -> dict[str, float]:
    tp, iou = len(matched_iou), float(matched_iou.sum())
    fp, fn = int(pred_count) - tp, int(true_count) - tp
    scores = {name: float(score) for name, score in pooled_quality(tp, fp, fn, iou).items()}
    return {**scores, "tp": tp, "fp": fp, "fn": fn, "iou": iou}


def _aggregate(true: _Labels, pred: _Labels, pairs: _Pairs, chosen: np.ndarray) -> float:
    missed = np.delete(true.areas, np.append(0, pairs.true[chosen])).sum()
    unused = np.delete(pred.areas, np.append(0, pairs.pred[chosen])).sum()
    return ratio(pairs.intersection[chosen].sum(), pairs.union[chosen].sum() + missed + unused)


def _count_type(true: np.ndarray, pred: np.ndarray, t: np.ndarray, p: np.ndarray) -> Detection:
    """Counts for one type, given who is of it and which true `t` is paired with which `p`."""
    tp = np.sum(true[t] & pred[p])
    return Detection(
        tp=int(tp),
        fp=int(pred.sum() - pred[p].sum()),
        fn=int(true.sum() - true[t].sum()),
        fp_type=int(pred[p].sum() - tp),
        fn_type=int(true[t].sum() - tp),
    )


def _classes(classes: Iterable[int] | None, *types: np.ndarray) -> list[int]:
    if classes is None:
        classes = np.unique(np.concatenate(types))
    return [int(c) for c in classes if c != 0]


def _one_each(types: np.ndarray, count: int, side: str) -> np.ndarray:
    types = np.asarray(types, np.int64)
    if types.shape != (count,):
        raise InputError(f"{count} {side} nuclei need as many types, not {types.shape}")
    return types


def _points(points: np.ndarray) -> np.ndarray:
    points = np.asarray(points, np.float64)
    if points.size and (points.ndim != 2 or points.shape[1] != 2):
        raise InputError(f"points are an array of shape (N, 2), not {points.shape}")
    return points.reshape(-1, 2)
