"""The roofline figure, from the numbers that `network.py --out FILE` wrote.

    python benchmarks/roofline.py FILE [FILE ...] --out docs/images/roofline.png

A point is a network: FLOP per byte that its compiled program reckons with (XLA's cost analysis,
which counts what a fused loop reads and writes), and FLOP/s. The flat roof is the matmul peak of
the same run, the slope the memory bandwidth given, or else measured by a copy here and now.
"""

import json
import time
from pathlib import Path
from typing import Annotated

import matplotlib.pyplot as plt
import numpy as np
import tyro
from timing import quartiles
from tyro.conf import Positional


def main(
    files: Annotated[list[Path], Positional], /, out: Path, bandwidth: float | None = None
) -> None:
    """Draw it. `bandwidth` is in GB/s."""
    rows = [row for file in files for row in json.loads(file.read_text())]
    peak = max(row["peak"] for row in rows)
    memory = 1e9 * bandwidth if bandwidth else copy_bandwidth()
    intensity = np.logspace(-1, 3.5)
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    roof = np.minimum(peak, intensity * memory) / 1e9
    axes.loglog(
        intensity,
        roof,
        color="black",
        label=f"roof: {peak / 1e9:.0f} GFLOP/s, {memory / 1e9:.0f} GB/s",
    )
    for row in rows:
        rate = row["flops"] / quartiles(row["times"]["ours"])[1] * 1e3 / 1e9
        name = f"{row['preset']}, {row['tile']}², batch {row['batch']}"
        axes.plot(row["flops"] / row["bytes"], rate, "o", label=name)
    axes.set(xlabel="FLOP per byte", ylabel="GFLOP/s")
    axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(out, dpi=150)


def copy_bandwidth() -> float:
    """Bytes per second of a large copy, read and written, the best of some."""
    source = np.ones(1 << 26, np.float32)
    target, seconds = np.empty_like(source), []
    for _ in range(5):
        start = time.perf_counter()
        np.copyto(target, source)
        seconds.append(time.perf_counter() - start)
    return 2 * source.nbytes / min(seconds)


if __name__ == "__main__":
    tyro.cli(main)
