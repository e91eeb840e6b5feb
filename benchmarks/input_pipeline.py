"""Images per second of the input pipeline alone, and of a training step that it has to feed.

    python benchmarks/input_pipeline.py [--no-step]

Tiles of 256 x 256 with the published augmentation and the targets, from fields held in memory; the
step is CellViT-256's with a frozen encoder, two tiles a batch.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator
from itertools import islice

import cv2
import jax
import numpy as np
import optax
from flax import nnx

from cellvit_jax.data import Augmentation, Sample
from cellvit_jax.data.pipeline import Batch, RandomTile, batches
from cellvit_jax.models import CellViT, ModelConfig
from cellvit_jax.training.objective import Objective

BATCH, BATCHES, ROUNDS = 16, 12, 3
READERS = {
    "1 thread": {"threads": 1},
    "2 threads": {"threads": 2},
    "1 process": {"threads": 1, "workers": 1},
    "2 processes": {"threads": 1, "workers": 2},
}


def fields(count: int = 32, size: int = 256) -> list[Sample]:
    """Noise of an image's smoothness with some 40 typed nuclei."""
    rng = np.random.default_rng(0)
    made = []
    for number in range(count):
        image = cv2.GaussianBlur(rng.integers(0, 256, (size, size, 3), np.uint8), (0, 0), 2)
        instances = np.zeros((size, size), np.int32)
        for nucleus, centre in enumerate(rng.integers(0, size, (40, 2)).tolist(), start=1):
            cv2.circle(instances, centre, int(rng.integers(6, 13)), nucleus, cv2.FILLED)
        types = (instances % 5 + (instances > 0)).astype(np.uint8)
        made.append(Sample(f"field {number}", image, instances, types, tissue=number % 19))
    return made


def tiles(augmentation: Augmentation) -> RandomTile:
    samples = fields()
    return RandomTile(samples, np.ones(len(samples)), augmentation=augmentation)


def images_per_second(stream: Iterator[Batch]) -> float:
    """Over `BATCHES` batches, after those that were prepared while nobody looked."""
    for _ in islice(stream, 5):
        pass
    start = time.perf_counter()
    for _ in islice(stream, BATCHES):
        pass
    return BATCH * BATCHES / (time.perf_counter() - start)


def frozen_step(config: ModelConfig) -> Callable[[Batch], object]:
    """Gradient and AdamW of all but the encoder."""
    objective, optimizer = Objective(), optax.adamw(3e-4)
    trained = nnx.All(nnx.Param, nnx.Not(nnx.PathContains("encoder")))
    model = CellViT(config, rngs=nnx.Rngs(0))
    graphdef, params, rest = nnx.split(model, trained, ...)

    @jax.jit
    def step(params, rest, moments, batch):
        def loss(params):
            model = nnx.merge(graphdef, params, rest, copy=True)
            value, _ = objective(model, batch)
            return value, nnx.split(model, trained, ...)[2]

        (_, rest), gradients = jax.value_and_grad(loss, has_aux=True)(params)
        updates, moments = optimizer.update(gradients, moments, params)
        return optax.apply_updates(params, updates), rest, moments

    moments = optimizer.init(params)
    return lambda batch: jax.block_until_ready(step(params, rest, moments, batch))


def step_rate() -> float:
    """Images per second of the step, median of three after compilation."""
    batch = next(batches(tiles(Augmentation.none()), 2, seed=0))
    step = frozen_step(ModelConfig.cellvit_256())
    step(batch)
    times = []
    for _ in range(3):
        start = time.perf_counter()
        step(batch)
        times.append(time.perf_counter() - start)
    return 2 / statistics.median(times)


def main(with_step: bool) -> None:
    rate = step_rate() if with_step else float("nan")
    print(f"step of cellvit-256, frozen encoder: {rate:.2f} images/s\n")
    print("| pipeline | images/s, median (min-max) | of the step |")
    print("| --- | ---: | ---: |")
    for name, options in READERS.items():
        found = []
        for round_ in range(ROUNDS):
            stream = batches(tiles(Augmentation.published()), BATCH, seed=round_, **options)
            found.append(images_per_second(stream))
            stream.close()
        middle = statistics.median(found)
        spread = f"{middle:.0f} ({min(found):.0f}-{max(found):.0f})"
        print(f"| {name} | {spread} | {middle / rate:.0f} |")


if __name__ == "__main__":
    cv2.setNumThreads(1)
    main("--no-step" not in sys.argv[1:])
