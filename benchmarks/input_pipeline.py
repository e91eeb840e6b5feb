"""Images per second of the input pipeline alone, and of a training step that it has to feed.

    python benchmarks/input_pipeline.py [--no-step]

On a machine that does other things as well, CPU time is what can be compared.

Tiles of 256 x 256 with the published augmentation and the targets, from fields held in memory; the
step is CellViT-256's with a frozen encoder, two tiles a batch.
"""

from __future__ import annotations

import dataclasses
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


@dataclasses.dataclass(frozen=True)
class Cost:
    """Of an image: elapsed seconds, and seconds of all cores of this process."""

    elapsed: float
    cpu: float


def cost(work: Callable[[], object], images: int) -> Cost:
    elapsed, cpu = time.perf_counter(), time.process_time()
    work()
    elapsed, cpu = time.perf_counter() - elapsed, time.process_time() - cpu
    return Cost(elapsed / images, cpu / images)


def cost_of_reading(options: dict[str, int], seed: int) -> Cost:
    """Over `BATCHES` batches, after those that were prepared while nobody looked."""
    stream = batches(tiles(Augmentation.published()), BATCH, seed=seed, **options)
    drop(islice(stream, 5))
    found = cost(lambda: drop(islice(stream, BATCHES)), BATCH * BATCHES)
    stream.close()
    return found


def drop(stream: Iterator[Batch]) -> None:
    for _ in stream:
        pass


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


def cost_of_step() -> Cost:
    """Medians of three steps after compilation."""
    batch = next(batches(tiles(Augmentation.none()), 2, seed=0))
    step = frozen_step(ModelConfig.cellvit_256())
    step(batch)
    return median([cost(lambda: step(batch), 2) for _ in range(3)])


def median(costs: list[Cost]) -> Cost:
    return Cost(*(statistics.median(c) for c in zip(*map(dataclasses.astuple, costs), strict=True)))


def main(with_step: bool) -> None:
    step = cost_of_step() if with_step else Cost(float("nan"), float("nan"))
    print("| | images/s, median (min-max) | of the step | CPU ms an image | of the step |")
    print("| --- | ---: | ---: | ---: | ---: |")
    print(f"| step | {1 / step.elapsed:.2f} | 1 | {1e3 * step.cpu:.0f} | 1 |")
    for name, options in READERS.items():
        found = [cost_of_reading(options, seed) for seed in range(ROUNDS)]
        rates = sorted(1 / one.elapsed for one in found)
        middle = median(found)
        row = f"{1 / middle.elapsed:.0f} ({rates[0]:.0f}-{rates[-1]:.0f})"
        row += f" | {step.elapsed / middle.elapsed:.0f}"
        own = "workers" not in options  # the time of other processes is not seen from here
        row += f" | {1e3 * middle.cpu:.1f} | {middle.cpu / step.cpu:.5f}" if own else " | – | –"
        print(f"| {name} | {row} |")


if __name__ == "__main__":
    cv2.setNumThreads(1)
    main("--no-step" not in sys.argv[1:])
