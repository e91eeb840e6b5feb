"""Peak memory of a whole slide by the number of its cells, with a network that costs nothing.

    python benchmarks/slide_memory.py [--cells 200000 2000000] [--figure docs/images/memory.png]
    python benchmarks/slide_memory.py --embed

Each slide in a process of its own, since a process' peak never falls. Beside the peak stands what
of it there was before the first tile: the interpreter, the libraries. The figure has the PyTorch
original beside it, as its users report: 63 GB at 0.9 million cells, more than 128 at 2 million.
With `--embed` a vector of 384 numbers is kept for each cell, in Parquet and AnnData.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import tyro

PER_TILE = 400  # cells in a core of 768² of the recorded maps, about
ORIGINAL = {900_000: 63e9, 2_000_000: 128e9}  # cells, bytes: the last one did not go through


def main(
    cells: tuple[int, ...] = (20_000, 200_000, 2_000_000),
    figure: Path | None = None,
    alone: int | None = None,
    embed: bool = False,
) -> None:
    """Print the peaks, and their ratio to that of the slide before; draw them."""
    if alone is not None:
        print(json.dumps(measure(alone, embed)))
        return
    all_found: list[dict[str, float]] = []
    for count in cells:
        command = [sys.executable, __file__, "--alone", str(count), *["--embed"] * embed]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        all_found.append(json.loads(done.stdout.splitlines()[-1]))
        print(line(*all_found[-2:]), flush=True)
    if figure:
        draw(all_found, figure)


def line(*two: dict[str, float]) -> str:
    """A slide in words, compared with the one before it."""
    found, before = two[-1], two[0]
    return (
        f"{found['cells']:>9,} cells, {found['tiles']:,} tiles: peak {found['peak'] / 1e9:.2f} GB "
        f"({found['before'] / 1e9:.2f} before), {found['peak'] / before['peak']:.2f} of the last; "
        f"{found['seconds']:.0f} s"
    )


def draw(all_found: list[dict[str, float]], path: Path) -> None:
    """Peaks by cells, on logarithmic axes."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    _, axes = plt.subplots(figsize=(6, 3.6), layout="constrained")
    axes.loglog(
        [found["cells"] for found in all_found],
        [found["peak"] / 1e9 for found in all_found],
        "o-",
        color="tab:blue",
        label="cellvit-jax, whole process without a model",
    )
    axes.loglog(
        list(ORIGINAL),
        [size / 1e9 for size in ORIGINAL.values()],
        "x--",
        color="tab:red",
        label="PyTorch original, as reported (the last one failed)",
    )
    axes.set(xlabel="cells in the slide", ylabel="peak memory, GB", ylim=(0.5, 200))
    axes.grid(alpha=0.3)
    axes.legend(loc="upper left", frameon=False, fontsize=9)
    plt.savefig(path, dpi=130)


def measure(count: int, embed: bool) -> dict[str, float]:
    """One slide of about `count` cells."""
    from slides import RecordedNetwork, make_slide, recorded

    from cellvit_jax.inference.embed import EmbedOptions
    from cellvit_jax.inference.progress import watch
    from cellvit_jax.inference.report import peak_rss
    from cellvit_jax.inference.slide_job import Options, segment_slide
    from cellvit_jax.slides import open_slide

    side = int(np.ceil(np.sqrt(count / PER_TILE)))
    with tempfile.TemporaryDirectory() as folder:
        slide = open_slide(make_slide(Path(folder) / "slide.tif", side, side))
        network, before = RecordedNetwork(recorded(), tokens=embed), peak_rss()
        options = Options(export=("parquet", "geojson"), tissue="none")
        if embed:
            options = EmbedOptions(export=("parquet", "h5ad"), tissue="none", tokens=True)
        report = segment_slide(slide, Path(folder) / "out", network, options, {}, watch(quiet=True))
    return {
        "cells": report.cells.total(),
        "tiles": report.tiles,
        "before": before,
        "peak": peak_rss(),
        "seconds": report.wall,
    }


if __name__ == "__main__":
    tyro.cli(main)
