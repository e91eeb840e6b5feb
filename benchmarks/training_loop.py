"""Images a second of the whole training loop beside those of its step alone, in turns.

    python benchmarks/training_loop.py [--model cellvit-tiny] [--steps 8] [--rounds 5]
    python benchmarks/training_loop.py --model cellvit-256 --steps 3 --rounds 5

The loop is that of `cellvit-jax train` by the recipe `finetune`: it makes and augments tiles of
fields, puts them on the device, steps, logs and shows. Every few steps it waits while as many are
made alone, of one batch that lies on the device, so that whatever else the machine does falls on
both; CPU time is that of this process. The first round, which compiles, does not count.

Then what a run by the defaults spends on validation and saving: the seconds of one, on three fields
of 1000², against those of an epoch of a hundred steps.
"""

from __future__ import annotations

import contextlib
import dataclasses
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import tyro
from timing import load, ratio, spread

from cellvit_jax import caches
from cellvit_jax.data import Dataset, Sample
from cellvit_jax.data.pipeline import Batch, RandomTile, batches
from cellvit_jax.sharding import make_mesh, put_batch
from cellvit_jax.training import run, start
from cellvit_jax.training.logs import Logs
from cellvit_jax.training.loop import CALIBRATION_SHARE, Loop, Stream, Validation
from cellvit_jax.training.progress import Bar
from cellvit_jax.training.recipes import finetune
from cellvit_jax.training.start import Weights
from cellvit_jax.training.state import Layout, begin, new_layout
from cellvit_jax.training.states import Standing, States
from cellvit_jax.training.step import make_step
from cellvit_jax.training.stopping import Stopping

EPOCH = finetune().steps_per_epoch


class Times(NamedTuple):
    """Milliseconds of a block of steps."""

    elapsed: float
    cpu: float

    @classmethod
    def since(cls, began: Times) -> Times:
        """From then to now."""
        now = cls.now()
        return cls(now.elapsed - began.elapsed, now.cpu - began.cpu)

    @classmethod
    def now(cls) -> Times:
        """Of the two clocks."""
        return cls(1000 * time.perf_counter(), 1000 * time.process_time())


class Alone:
    """The step of a layout on one batch, which lies on the device."""

    def __init__(self, layout: Layout, batch: Batch):
        self.step = make_step(layout, encoder_rests=True)
        self.batch = put_batch(batch, layout.mesh)
        self.state = begin(layout)

    def __call__(self, steps: int) -> Times:
        """Make so many."""
        began = Times.now()
        for _ in range(steps):
            self.state, metrics = self.step(self.state, self.batch)
        jax.block_until_ready((self.state, metrics))
        return Times.since(began)


@dataclasses.dataclass
class Turns:
    """The loop's batches; after every `steps` of them the step alone has its turn."""

    made: Callable[..., Iterator[Batch]]
    alone: Alone
    steps: int
    loop: Loop | None = None
    whole: list[Times] = dataclasses.field(default_factory=list)
    steps_alone: list[Times] = dataclasses.field(default_factory=list)

    def __call__(self, first: int) -> Iterator[Batch]:
        # those from behind the last step on are for batch statistics, and are not timed
        return self.made(start=first) if first else self.timed()

    def timed(self) -> Iterator[Batch]:
        """The batches of the loop's steps."""
        began = None
        for index, batch in enumerate(self.made(start=0)):
            if index % self.steps == 0:
                if began:
                    self.turn(began)
                began = Times.now()
            yield batch

    def turn(self, began: Times) -> None:
        """A block of the loop's ends with its last step, which may still be under way."""
        assert self.loop is not None
        jax.block_until_ready(self.loop.pending)
        self.whole.append(Times.since(began))
        self.steps_alone.append(self.alone(self.steps))


@dataclasses.dataclass
class Spent:
    """Seconds of one validation with its saving, the second one of a run: nothing compiles."""

    whole: float = 0.0
    statistics: float = 0.0  # of it, to measure batch statistics


def main(model: str = "cellvit-tiny", steps: int = 8, rounds: int = 5, batch_size: int = 4) -> None:
    """Print both rates, their ratio, and the share of validation."""
    caches.keep_compiled_programs()
    data = Dataset("made", [field(seed) for seed in range(4)], ("disc",))
    count = steps * (rounds + 1) + 1  # the turn after the last block comes with one step more
    recipe = dataclasses.replace(
        finetune(), epochs=1, steps_per_epoch=count, batch_size=batch_size, save_every=10**6
    )
    network = start.find(model, data, tile=recipe.tile)
    layout = new_layout(network.config, network.card, recipe, make_mesh())
    tiles = RandomTile(data.samples, np.ones(4), recipe.tile, recipe.augmentation)
    made = partial(batches, tiles, batch_size, seed=0)
    turns = Turns(made, Alone(layout, next(made())), steps)
    print(f"{model}, {batch_size} tiles of {recipe.tile}², encoder at rest; {load()}\n", flush=True)
    measured = dataclasses.replace(data, samples=data.samples[:3])
    spent = go(layout, network.weights, turns, Validation(partial(run.score, measured)))
    show_rates(turns, batch_size * steps)
    show_share(spent, statistics.median(times.elapsed for times in turns.whole[1:]) / steps)


def field(seed: int, side: int = 1000) -> Sample:
    """Noise with a disc every 32 pixels."""
    rows, columns = np.mgrid[:side, :side]
    inside = np.hypot(rows % 32 - 16, columns % 32 - 16) < 10
    instances = np.where(inside, 1 + rows // 32 * (side // 32 + 1) + columns // 32, 0)
    image = np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)
    image[inside] //= 2
    return Sample(f"made {seed}", image, instances.astype(np.int32), inside.astype(np.uint8))


def go(layout: Layout, weights: Weights, turns: Turns, validation: Validation) -> Spent:
    """A run of one epoch, which ends with a validation, and another one."""
    count = layout.recipe.steps
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        bar = Bar(count, 0, layout.recipe.batch_size)
        with States(path / "state", 2) as states, Logs(path, 0, ("tensorboard",)) as logs, bar:
            loop = Loop(path, layout, turns, validation, states, logs, bar, Standing())
            turns.loop = loop
            with Stopping() as stopping, contextlib.closing(Stream(turns, 0)) as stream:
                _, state = loop.steps(0, begin(layout, weights), stream, stopping)
            began, before = time.perf_counter(), loop.idle
            loop.model(state, CALIBRATION_SHARE)
            measured = time.perf_counter() - began
            loop.between(2 * count, state)
            return Spent(loop.idle - before, measured)


def show_rates(turns: Turns, images: int) -> None:
    """A row for each clock, of medians and quartiles over rounds."""
    print("| images a second | step alone | whole loop | of the step |")
    print("| --- | ---: | ---: | ---: |")
    for clock in Times._fields:
        alone, whole = (
            [getattr(times, clock) for times in blocks[1:]]
            for blocks in (turns.steps_alone, turns.whole)
        )
        rates = [spread([1000 * images / t for t in times], 3) for times in (alone, whole)]
        print(f"| by {clock} time | {rates[0]} | {rates[1]} | {ratio(alone, whole)} |", flush=True)


def show_share(spent: Spent, step: float) -> None:
    """The arithmetic of the defaults, for a median step in milliseconds."""
    epoch = EPOCH * step / 1000
    print(
        f"\nvalidation and saving: {spent.whole:.1f} s, {spent.statistics:.1f} s of it for batch "
        f"statistics; an epoch of {EPOCH} steps: {epoch:.0f} s; share of the run: "
        f"{spent.whole / (spent.whole + epoch):.1%}"
    )


if __name__ == "__main__":
    tyro.cli(main)
