"""How long the targets of a 256 x 256 tile take, one core, against the same sums in plain NumPy.

    taskset -c 0 python benchmarks/targets.py

Also checks that both are equal, number by number.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np

from cellvit_jax.data import hv_map, regression_map

ROUNDS = 200


def nuclei(count: int, size: int = 256) -> np.ndarray:
    """`count` discs of radius 8 to 13 on a jittered grid: (size, size) int32."""
    rng = np.random.default_rng(0)
    side = int(np.ceil(count**0.5))
    rows, columns = np.mgrid[:size, :size]
    instances = np.zeros((size, size), np.int32)
    for number in range(count):
        row, column = (np.divmod(number, side) + rng.uniform(0.4, 0.6, 2)) * size / side
        instances[np.hypot(rows - row, columns - column) < rng.uniform(8, 13)] = number + 1
    return instances


def plain_hv(instances: np.ndarray) -> np.ndarray:
    """`hv_map` in NumPy, all nuclei at once."""
    hv = np.zeros((*instances.shape, 2), np.float32)
    rows, columns = np.nonzero(instances)
    _, label = np.unique(instances[rows, columns], return_inverse=True)
    for channel, position in enumerate((columns, rows)):
        count = np.bincount(label)
        middle = np.floor(np.bincount(label, position) / count + 0.5).astype(np.int64) - 1
        low, high = np.full(len(count), 2**31), np.full(len(count), -1)
        np.minimum.at(low, label, position)
        np.maximum.at(high, label, position)
        offset = (position - middle[label]).astype(np.float32)
        side = np.where(offset < 0, (middle - low)[label], (high - middle)[label])
        np.divide(offset, side.astype(np.float32), out=offset, where=offset != 0)
        hv[rows, columns, channel] = offset
    return hv


def plain_regression(instances: np.ndarray) -> np.ndarray:
    """`regression_map` in NumPy, all nuclei at once."""
    out = np.zeros((*instances.shape, 2), np.float32)
    rows, columns = np.nonzero(instances)
    _, label = np.unique(instances[rows, columns], return_inverse=True)
    for channel, position in enumerate((columns, rows)):
        centre = np.bincount(label, position) / np.bincount(label)
        out[rows, columns, channel] = position - centre[label]
    return out


def milliseconds(function: Callable[[], object]) -> list[float]:
    """CPU time of each of `ROUNDS` calls."""
    times = []
    for _ in range(ROUNDS):
        start = time.process_time()
        function()
        times.append(1e3 * (time.process_time() - start))
    return times


def spread(times: list[float]) -> str:
    low, median, high = statistics.quantiles(times, n=4)
    return f"{median:.3f} ms ({low:.3f}-{high:.3f})"


def main() -> None:
    print("| target | nuclei | ours | NumPy | ratio |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for count in (30, 88):
        instances = nuclei(count)
        for name, ours, plain in (
            ("hv_map", hv_map, plain_hv),
            ("regression_map", regression_map, plain_regression),
        ):
            np.testing.assert_array_equal(ours(instances), plain(instances))
            fast = milliseconds(lambda: ours(instances))  # noqa: B023
            slow = milliseconds(lambda: plain(instances))  # noqa: B023
            ratio = statistics.median(fast) / statistics.median(slow)
            print(f"| {name} | {count} | {spread(fast)} | {spread(slow)} | {ratio:.3f} |")


if __name__ == "__main__":
    main()
