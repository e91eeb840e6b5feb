"""Time of `extract_cells` over that of scikit-image's watershed alone, on one core.

    python benchmarks/extract_cells.py [MAPS.npz ...]

Both get the same energy, markers and mask, in turns, in one run. MAPS hold `binary`, `hv_x`,
`hv_y` and `type`; by default the recorded tiles of 1024 pixels beside this checkout.
"""

from __future__ import annotations

import os
import statistics
import sys
from pathlib import Path

import cv2
import numpy as np
from plain import flood_inputs
from skimage.segmentation import watershed
from timing import milliseconds, spread

from cellvit_jax.cells import edges, extract_cells

RECORDS = Path(__file__).resolve().parents[2] / "shared" / "reference" / "postprocessing"
DEFAULT = [RECORDS / "nucls-1024.npz", RECORDS / "crowded-1024.npz"]
ROUNDS = 25


def compare(path: Path) -> str:
    """One line: medians and spreads of both, and the ratio of the medians."""
    with np.load(path) as maps:
        binary, types = maps["binary"], maps["type"]
        hv = np.stack([maps["hv_x"], maps["hv_y"]], -1).astype(np.float32)
    energy, markers, mask = flood_inputs(binary, edges(hv))
    ours, theirs = [], []
    extract_cells(binary, hv, types)  # compiles
    for _ in range(ROUNDS):
        ours.append(milliseconds(lambda: extract_cells(binary, hv, types)))
        theirs.append(milliseconds(lambda: watershed(energy, markers, mask=mask)))
    ratio = statistics.median(ours) / statistics.median(theirs)
    return f"{path.stem:14} {spread(ours)} ms   {spread(theirs)} ms   {ratio:5.2f}"


def main(paths: list[Path]) -> None:
    cv2.setNumThreads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    print(f"{'':14} extract_cells, quartiles    watershed alone, quartiles    ratio")
    for path in paths:
        print(compare(path))


if __name__ == "__main__":
    main([Path(p) for p in sys.argv[1:]] or DEFAULT)
