"""CPU time of `shapes` and `stain`, and of scikit-image's `regionprops_table` for the same shapes.

    python benchmarks/measurements.py [MAPS.npz ...]

In turns, in one run, on one core. MAPS hold `expected_instances`; by default the recorded tiles of
1024 pixels beside this checkout. `stain` sees noise.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from skimage.measure import regionprops_table
from timing import milliseconds, spread

from cellvit_jax.cells import shapes, stain

RECORDS = Path(__file__).resolve().parents[2] / "shared" / "reference" / "postprocessing"
DEFAULT = [RECORDS / "nucls-1024.npz", RECORDS / "crowded-1024.npz"]
ROUNDS = 3
REPEATS = {"shapes": 10, "stain": 10, "regionprops": 1}


def compare(path: Path) -> str:
    """One line: medians and quartiles of all three, and the ratio of the first and the last."""
    with np.load(path) as maps:
        instances = maps["expected_instances"].astype(np.int32)
    image = np.random.default_rng(0).integers(0, 256, (*instances.shape, 3), np.uint8)
    count = int(instances.max())
    run: dict[str, Callable[[], object]] = {
        "shapes": lambda: shapes(instances, count),
        "stain": lambda: stain(image, instances, count),
        "regionprops": lambda: regionprops_table(
            instances, properties=("perimeter", "eccentricity", "solidity")
        ),
    }
    times: dict[str, list[float]] = {name: [] for name in run}
    for name in ("shapes", "stain"):
        run[name]()  # compiles
    for _ in range(ROUNDS):
        for name, repeats in REPEATS.items():
            times[name] += [milliseconds(run[name], time.process_time) for _ in range(repeats)]
    ratio = statistics.median(times["shapes"]) / statistics.median(times["regionprops"])
    spreads = " | ".join(f"{spread(times[name])} ms" for name in run)
    return f"| {path.stem} | {count} | {spreads} | {ratio:.4f} |"


def main(paths: list[Path]) -> None:
    """Print a row a tile."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    print("| tile | nuclei | shapes | stain | regionprops_table | ratio |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for path in paths:
        print(compare(path))


if __name__ == "__main__":
    main([Path(p) for p in sys.argv[1:]] or DEFAULT)
