"""Seconds, size and peak memory of writing cells in every format, streamed, a process each.

    python benchmarks/exports.py [--cells 1000000] [--tokens 0] [FORMAT ...]

Cells are made as they are written: 20 vertices, six probabilities, all measurements. Memory is what
the process grows by from before the first cell, so a stream's should be the same for a fifth of the
cells. The baseline is geopandas, which holds all of them and writes GeoParquet, in the same run.
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from cellvit_jax import exports
from cellvit_jax.card import PANNUKE_CLASSES, ModelCard
from cellvit_jax.cells import Cells
from cellvit_jax.exports.outlines import polygons, rings
from cellvit_jax.exports.results import FILES

BASELINE = "geopandas"
BLOCK, VERTICES = 10_000, 20
CLASSES = ModelCard(PANNUKE_CLASSES).cell_classes


def cells(count: int, tokens: int) -> Iterator[Cells]:
    """Blocks of round nuclei on a grid with 10 µm between them."""
    rng = np.random.default_rng(0)
    for start in range(0, count, BLOCK):
        yield Cells(_block(np.arange(start, min(start + BLOCK, count)), tokens, rng), CLASSES, 0.25)


def _block(ids: np.ndarray, tokens: int, rng: np.random.Generator) -> pa.Table:
    radius = rng.uniform(6, 14, (len(ids), 1, 1))
    centre = np.stack([ids % 1000, ids // 1000], 1) * 40 + rng.uniform(15, 25, (len(ids), 2))
    angle = -np.linspace(0, 2 * np.pi, VERTICES, endpoint=False)
    outline = centre[:, None] + radius * np.stack([np.cos(angle), np.sin(angle)], -1)
    outline = np.rint(outline).astype(np.float32)
    low, high = outline.min(1).astype(np.int32), outline.max(1).astype(np.int32) + 1
    measured = ("perimeter", "eccentricity", "solidity", "haematoxylin_mean", "haematoxylin_sd")
    columns = {
        "id": ids + 1,
        **{f"centroid_{axis}": centre[:, i] for i, axis in enumerate("xy")},
        **{f"bbox_{side}": low[:, i] for side, i in (("r0", 1), ("c0", 0))},
        **{f"bbox_{side}": high[:, i] for side, i in (("r1", 1), ("c1", 0))},
        "area": np.rint(np.pi * radius[:, 0, 0] ** 2),
        "type": (1 + ids % len(CLASSES)).astype(np.int32),
        "type_prob": rng.random(len(ids), np.float32),
        **{name: rng.random(len(ids), np.float32) for name in measured},
        "contour": _lists(pa.FixedSizeListArray.from_arrays(outline.reshape(-1), 2), VERTICES),
        "probabilities": _lists(rng.dirichlet(np.ones(6), len(ids)).astype(np.float32).ravel(), 6),
    }
    if tokens:
        values = rng.normal(size=len(ids) * tokens).astype(np.float32)
        columns["token"] = pa.FixedSizeListArray.from_arrays(values, tokens)
    return pa.table(columns)


def _lists(values, size: int) -> pa.ListArray:
    return pa.ListArray.from_arrays(np.arange(0, len(values) + 1, size, np.int32), pa.array(values))


def _geopandas(blocks: Iterator[Cells], path: Path) -> None:
    import geopandas

    table = pa.concat_tables(block.table for block in blocks)
    flat = table.drop_columns(["contour"]).to_pandas()
    outlines = polygons(*rings(table["contour"].combine_chunks()))
    geopandas.GeoDataFrame(flat, geometry=outlines).to_parquet(path)


def measure(kind: str, count: int, tokens: int) -> None:
    """Write one file, and print what it took as JSON."""
    blocks = cells(count, tokens)
    first = next(blocks)
    write = _geopandas if kind == BASELINE else exports.write
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / FILES.get(kind, "cells.parquet")
        write(itertools.chain([Cells(first.table[:100], CLASSES, 0.25)]), path)  # imports, caches
        before, start, cpu = _peak(), time.perf_counter(), time.process_time()
        write(itertools.chain([first], blocks), path)
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
        size = sum(file.stat().st_size for file in files)
    print(json.dumps({"seconds": seconds, "cpu": cpu, "size": size, "memory": _peak() - before}))


def _peak() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _in_a_process(kind: str, count: int, tokens: int) -> dict[str, float]:
    command = [
        sys.executable,
        __file__,
        "--measure",
        kind,
        f"--cells={count}",
        f"--tokens={tokens}",
    ]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    """Print a row a format."""
    parser = argparse.ArgumentParser()
    parser.add_argument("formats", nargs="*")
    parser.add_argument("--cells", type=int, default=1_000_000)
    parser.add_argument("--tokens", type=int, default=0)
    parser.add_argument("--measure")
    options = parser.parse_args()
    if options.measure:
        measure(options.measure, options.cells, options.tokens)
        return
    print(f"{options.cells:,} cells, {options.tokens} numbers a token")
    print("| format | s | CPU s | of geopandas | MB | grows by MB | a fifth: MB |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    base = None
    for kind in (BASELINE, *(options.formats or ["parquet", *FILES])):
        full, fifth = (
            _in_a_process(kind, count, options.tokens)
            for count in (options.cells, options.cells // 5)
        )
        base = base or full["cpu"]
        memory = full["memory"] / 1e6, fifth["memory"] / 1e6
        print(
            f"| {kind} | {full['seconds']:.1f} | {full['cpu']:.1f} | {full['cpu'] / base:.2f} | "
            f"{full['size'] / 1e6:.0f} | {memory[0]:.0f} | {memory[1]:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
