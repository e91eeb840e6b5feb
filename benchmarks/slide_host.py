"""Tiles a second that the host keeps up with, with a network that costs nothing.

    python benchmarks/slide_host.py [--tiles 60]

A slide of recorded maps, tiles of 1024² with hundreds of nuclei: reading, edges, watershed,
stitching, journal and files are real. To compare: scikit-image's watershed alone on the same maps.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np
import tyro
from skimage.segmentation import watershed
from slides import RecordedNetwork, make_slide, recorded

from cellvit_jax.inference.cores import usable_cores
from cellvit_jax.inference.progress import watch
from cellvit_jax.inference.slide_job import Options, segment_slide
from cellvit_jax.slides import open_slide


def main(tiles: int = 60, export: tuple[str, ...] = ("parquet", "geojson")) -> None:
    """Print tiles and cells a second, and seconds per stage."""
    maps = recorded()
    with tempfile.TemporaryDirectory() as folder:
        side = int(np.ceil(np.sqrt(tiles)))
        slide = open_slide(make_slide(Path(folder) / "slide.tif", side, side))
        begun = time.perf_counter()
        report = segment_slide(
            slide,
            Path(folder) / "out",
            RecordedNetwork(maps),
            Options(export=export, tissue="none"),
            {},
            watch(quiet=True),
        )
        seconds = time.perf_counter() - begun
    print(report)
    print(f"{report.tiles / seconds:.1f} tiles/s, {report.cells.total() / seconds:,.0f} cells/s")
    print(f"on {usable_cores()} cores; {report.cells.total() / report.tiles:.0f} nuclei a tile")
    print(f"scikit-image's watershed alone, one core: {1 / baseline(maps):.1f} tiles/s")


def baseline(maps: list[np.ndarray], rounds: int = 5) -> float:
    """Median seconds of a plain watershed of a tile."""
    binary, hv, _ = maps
    seconds = []
    for _ in range(rounds):
        begun = time.perf_counter()
        watershed(hv[..., 0], mask=binary > 0)
        seconds.append(time.perf_counter() - begun)
    return float(np.median(seconds))


if __name__ == "__main__":
    tyro.cli(main)
