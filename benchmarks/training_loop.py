"""Images a second of the whole training loop, and of its step alone, in turns in one run.

    python benchmarks/training_loop.py [--model cellvit-256] [--steps 12]

The loop makes tiles of fields, augments them, logs and shows each step; the step alone sees one
batch that lies on the device. Compilation, validation and saving are left out: what those take, a
run says itself.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path

import jax
import numpy as np
import tyro

from cellvit_jax.data import Dataset, Sample
from cellvit_jax.data.pipeline import RandomTile, batches
from cellvit_jax.sharding import make_mesh, put_batch
from cellvit_jax.training import start
from cellvit_jax.training.loop import train
from cellvit_jax.training.recipes import finetune
from cellvit_jax.training.state import Layout, begin, new_layout
from cellvit_jax.training.step import make_step


def field(seed: int, side: int = 1000) -> Sample:
    """Noise with a disc every 32 pixels."""
    rows, columns = np.mgrid[:side, :side]
    inside = np.hypot(rows % 32 - 16, columns % 32 - 16) < 10
    instances = np.where(inside, 1 + rows // 32 * (side // 32 + 1) + columns // 32, 0)
    image = np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)
    return Sample(f"made {seed}", image, instances.astype(np.int32), inside.astype(np.uint8))


def alone(layout: Layout, tiles: RandomTile, steps: int) -> float:
    """Median seconds of a step."""
    stream = batches(tiles, layout.recipe.batch_size, seed=0)
    batch = put_batch(next(stream), layout.mesh)
    stream.close()
    step, state, times = make_step(layout, encoder_rests=True), begin(layout), []
    for _ in range(steps + 1):
        began = time.perf_counter()
        state, _ = jax.block_until_ready(step(state, batch))
        times.append(time.perf_counter() - began)
    return statistics.median(times[1:])  # the first compiles


def whole(layout: Layout, tiles: RandomTile) -> float:
    """Median seconds between two lines of the log."""
    recipe = layout.recipe
    with tempfile.TemporaryDirectory() as folder:
        stream = partial(batches, tiles, recipe.batch_size, seed=0)
        made = lambda step: stream(start=step)  # noqa: E731
        train(folder, layout.config, layout.card, recipe, made, mesh=layout.mesh)
        lines = (Path(folder) / "log.jsonl").read_text().splitlines()
    return statistics.median(np.diff([json.loads(line)["time"] for line in lines])[1:])


def main(model: str = "cellvit-tiny", steps: int = 12, rounds: int = 1) -> None:
    """Print both rates and their ratio."""
    recipe = dataclasses.replace(
        finetune(), epochs=1, steps_per_epoch=steps, save_every=10**6, calibration_batches=1
    )
    samples = [field(seed) for seed in range(4)]
    network = start.find(model, Dataset("made", samples, ("disc",)), tile=recipe.tile)
    layout = new_layout(network.config, network.card, recipe, make_mesh())
    tiles = RandomTile(samples, np.ones(len(samples)), recipe.tile, recipe.augmentation)
    for _ in range(rounds):
        one, all_ = alone(layout, tiles, steps), whole(layout, tiles)
        size = recipe.batch_size
        print(f"| {model} | {size / one:.3f} | {size / all_:.3f} | {one / all_:.2f} |", flush=True)


if __name__ == "__main__":
    tyro.cli(main)
