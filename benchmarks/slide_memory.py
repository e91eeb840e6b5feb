"""Peak memory of a whole slide by the number of its cells, with a network that costs nothing.

    python benchmarks/slide_memory.py [--cells 200000 2000000]

Each slide in a process of its own, since a process' peak never falls. Beside the peak stands what
of it there was before the first tile: the interpreter, the libraries.
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


def main(cells: tuple[int, ...] = (200_000, 2_000_000), alone: int | None = None) -> None:
    """Print the peaks, and their ratio to that of the first slide."""
    if alone is not None:
        print(json.dumps(measure(alone)))
        return
    first = None
    for count in cells:
        command = [sys.executable, __file__, "--alone", str(count)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found = json.loads(done.stdout.splitlines()[-1])
        first = first or found["peak"]
        print(
            f"{found['cells']:>9,} cells, {found['tiles']:,} tiles: "
            f"peak {found['peak'] / 1e9:.2f} GB "
            f"({found['before'] / 1e9:.2f} before), {found['peak'] / first:.2f} of the first; "
            f"{found['seconds']:.0f} s",
            flush=True,
        )


def measure(count: int) -> dict[str, float]:
    """One slide of about `count` cells."""
    from slides import RecordedNetwork, make_slide, recorded

    from cellvit_jax.inference.progress import watch
    from cellvit_jax.inference.report import peak_rss
    from cellvit_jax.inference.slide_job import Options, segment_slide
    from cellvit_jax.slides import open_slide

    side = int(np.ceil(np.sqrt(count / PER_TILE)))
    with tempfile.TemporaryDirectory() as folder:
        slide = open_slide(make_slide(Path(folder) / "slide.tif", side, side))
        network, before = RecordedNetwork(recorded()), peak_rss()
        options = Options(export=("parquet", "geojson"), tissue="none")
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
