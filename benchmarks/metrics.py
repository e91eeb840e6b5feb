"""How long the metrics take on a 1000 x 1000 pair of some 1000 nuclei, one core.

The yardstick, timed in the same run, is panoptic quality the customary way: one boolean mask per
nucleus.

    taskset -c 0 python benchmarks/metrics.py
"""

import statistics
import time
from collections.abc import Callable

import numpy as np

from cellvit_jax import metrics


def field_of_nuclei(rng: np.random.Generator, size: int = 1000, spacing: int = 31) -> np.ndarray:
    """An instance map of discs of radius 8 to 14 on a jittered grid, (size, size) int32."""
    rows, columns = np.mgrid[:size, :size]
    instances = np.zeros((size, size), np.int32)
    for index, (r, c) in enumerate(np.ndindex(size // spacing, size // spacing), start=1):
        y, x = np.array([r, c]) * spacing + rng.uniform(12, 19, 2)
        box = np.s_[max(0, int(y) - 15) : int(y) + 16, max(0, int(x) - 15) : int(x) + 16]
        disc = np.hypot(rows[box] - y, columns[box] - x) < rng.uniform(8, 14)
        instances[box][disc] = index
    return instances


def quality_by_masks(true: np.ndarray, pred: np.ndarray) -> float:
    """Sum of matched IoU, each nucleus as a mask of the whole image."""
    total = 0.0
    for t in np.unique(true)[1:]:
        mask = true == t
        for p in np.unique(pred[mask]):
            other = pred == p
            iou = np.sum(mask & other) / np.sum(mask | other)
            total += iou * (p > 0) * (iou > 0.5)
    return total


def milliseconds(function: Callable[[], object], repeats: int) -> float:
    """Median wall time of a call."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)


def main() -> None:
    rng = np.random.default_rng(0)
    true = field_of_nuclei(rng)
    pred = field_of_nuclei(rng)
    true_types, pred_types = (rng.integers(1, 6, len(np.unique(m)) - 1) for m in (true, pred))
    true_points, pred_points = metrics.centroids(true), metrics.centroids(pred)
    cases: dict[str, Callable[[], object]] = {
        "panoptic_quality": lambda: metrics.panoptic_quality(true, pred),
        "panoptic_quality_per_class": lambda: metrics.panoptic_quality_per_class(
            true, true_types, pred, pred_types
        ),
        "aggregated_jaccard": lambda: metrics.aggregated_jaccard(true, pred),
        "aggregated_jaccard_plus": lambda: metrics.aggregated_jaccard_plus(true, pred),
        "dice": lambda: metrics.dice(true, pred),
        "centroids": lambda: metrics.centroids(true),
        "detection": lambda: metrics.detection(true_points, pred_points),
    }
    by_masks = milliseconds(lambda: quality_by_masks(true, pred), repeats=1)
    print(f"{len(true_types)} true, {len(pred_types)} predicted nuclei on {true.shape}")
    print(f"{'one mask per nucleus':28} {by_masks:9.1f} ms     1.0000 x")
    for name, case in cases.items():
        elapsed = milliseconds(case, repeats=11)
        print(f"{name:28} {elapsed:9.1f} ms   {elapsed / by_masks:8.4f} x")


if __name__ == "__main__":
    main()
